"""The pages' tables, generated from stored results, so that no number is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    backfill_tables,
    cpu_tables,
    encoder_tables,
    gpu_tables,
    heads_tables,
    record,
    serve_tables,
    storage_tables,
    table3_tables,
    tasks_tables,
)
from benchmarks.markdown import source
from bitheads.engine.errors import InputError

README = Path(__file__).parent.parent / "README.md"
DOCS = README.with_name("docs")
BLOCK = r"(<!-- table: {name} -->\n).*?(<!-- end -->)"


def update(check: bool) -> None:
    """Writes every table between its markers, or with `check` only compares.

    Raises InputError if a table is not what the stored results say.
    """
    for path, tables in PAGES.items():
        old = new = path.read_text(encoding="utf-8")
        for name, (routine, make) in tables.items():
            table = make(record.read(routine)) if _has_run(routine) else NOT_RUN[routine]
            pattern = re.compile(BLOCK.format(name=name), re.DOTALL)
            if not pattern.search(new):
                raise InputError(f"{path.name}: no block <!-- table: {name} --> ... <!-- end -->.")
            new = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", new)
        if check and new != old:
            raise InputError(
                f"{path.name}: its tables differ from benchmarks/results. "
                "Type: python -m benchmarks tables"
            )
        path.write_text(new, encoding="utf-8")


def _has_run(routine: str) -> bool:
    return routine not in NOT_RUN or record.exists(routine)


def _headline(stored: dict[str, Any]) -> str:
    results = stored["result"].values()
    signs, float16, last = (
        sum(100 * result[name]["test_accuracy"] for result in results) / len(results)
        for name in ("signs", "float16", "last_layer_mean")
    )
    return (
        f"**A sixteenth of the bytes for {float16 - signs:.1f} points of accuracy:** {signs:.1f}% "
        f"on signs against {float16:.1f}% on the same features in fp16, and {last:.1f}% on the "
        f"usual sentence embedding; the mean of {len(results)} tasks, on a small frozen encoder "
        "that was fine-tuned for none of them."
    )


def _accuracy(stored: dict[str, Any]) -> str:
    features = ("signs", "float16", "last_layer_mean")
    backends = ("openvino fp32", "openvino bf16")
    results = stored["result"]
    rows = [
        "| task | data | majority | signs | float16 | last layer, mean | signs, macro F1 "
        "| same label, fp32 | same label, bf16 |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    columns = []
    for result in results.values():
        same = result["end_to_end"]["backends"]
        columns.append(
            [
                *(100 * result[name]["test_accuracy"] for name in features),
                100 * result["signs"]["test_macro_f1"],
                *(100 * same[backend]["same_top_label"] for backend in backends),
            ]
        )
    for (task, result), values in zip(results.items(), columns, strict=True):
        cells = " | ".join(f"{value:.1f}" for value in values)
        majority = f"{100 * result['signs']['test_majority']:.1f}"
        rows.append(f"| {task} | {result['data']} | {majority} | {cells} |")
    means = [sum(column) / len(column) for column in zip(*columns, strict=True)]
    rows.append(f"| **mean** | | | {' | '.join(f'**{mean:.1f}**' for mean in means)} |")
    return "\n".join([*rows, source(stored)])


def _parity(stored: dict[str, Any]) -> str:
    result = stored["result"]
    rows = [
        "| session | signs as in torch fp32 | worst layer | max abs error, pooled "
        "| differing signs within 1% of zero |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, session in result["sessions"].items():
        worst = min(layer["sign_agreement"] for layer in session["layers"].values())
        pooled = session["pooled"]
        rows.append(
            f"| {name} | {pooled['sign_agreement']:.3%} | {worst:.3%} "
            f"| {pooled['max_abs_error']:.4f} | {_near_zero(pooled['margin_histogram']):.1%} |"
        )
    rows.append("")
    rows.append(
        f"{result['texts']:,} real texts, {result['tokens']:,} tokens, {result['encoder']}, graph "
        f"typed in {result['graph_precision']}."
    )
    return "\n".join([*rows, source(stored)])


def _near_zero(histogram: dict[str, Any]) -> float:
    """Share of the differing signs whose feature is within 1% of its root mean square of zero."""
    bins = zip(histogram["lower_edges_rms"], histogram["flipped"], strict=True)
    near = sum(flipped for edge, flipped in bins if edge < 0.01)
    return float(near / sum(histogram["flipped"]))


def _pack(stored: dict[str, Any]) -> str:
    levels = ("serial", "avx2", "avx512")
    rows = [
        "| shape | mode | " + " | ".join(levels) + " |",
        "|---|---|" + "---:|" * len(levels),
    ]
    for name, shape in stored["result"].items():
        for mode, by_level in shape["modes"].items():
            cells = [
                f"{by_level[level]['times_a_copy']:.2f}" if level in by_level else ""
                for level in levels
            ]
            rows.append(f"| {name} | {mode} | {' | '.join(cells)} |")
    return "\n".join([*rows, source(stored)])


def _plan(stored: dict[str, Any]) -> str:
    result = stored["result"]
    rows = [
        "| shape | outputs | graph, MB | profiles | build, s | plan, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, shape in result["shapes"].items():
        for build in shape["builds"]:
            rows.append(
                f"| {name} | {shape['outputs']} | {shape['graph_bytes'] / 1e6:.1f} "
                f"| {len(build['profiles'])} | {build['build_s']:.0f} "
                f"| {build['plan_bytes'] / 1e6:.1f} |"
            )
    note = f" {result['note']}" if result["note"] else ""
    rows.append("")
    rows.append(
        f"tensorrt-rtx {result['version']}, one plan for compute capability "
        f"{', '.join(result['compute_capabilities'])}.{note}"
    )
    return "\n".join([*rows, source(stored)])


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "headline": ("accuracy", _headline),
    "next_task": ("heads", heads_tables.next_task),
    "stored_texts": ("backfill", backfill_tables.stored_texts),
    "accuracy": ("accuracy", _accuracy),
    "parity": ("parity", _parity),
    "table3": ("table3_minilm", table3_tables.summary),
    "precision": ("accuracy_by_precision", cpu_tables.accuracy_by_precision),
    "pack": ("pack", _pack),
    "heads": ("heads", heads_tables.measured),
    "heads_elsewhere": ("heads_xeon", heads_tables.elsewhere),
    "encoder": ("encoder", encoder_tables.measured),
    "latency": ("latency", cpu_tables.latency),
    "memory": ("memory", cpu_tables.memory),
    "serve": ("serve", serve_tables.measured),
    "overload": ("overload", serve_tables.overload),
    "tasks": ("tasks", tasks_tables.measured),
    "storage": ("storage", storage_tables.measured),
    "backfill": ("backfill", backfill_tables.measured),
    "plan": ("plan", _plan),
    "roofline": ("roofline", gpu_tables.roofline),
    "device_code": ("device_code", gpu_tables.device_code),
    "gpu": ("gpu", gpu_tables.measured),
}
"""Block in a page -> (the routine whose result it shows, how)."""

ON_FIRST_PAGE = ("headline", "next_task", "stored_texts")

PAGES = {
    README: {name: TABLES[name] for name in ON_FIRST_PAGE},
    DOCS / "benchmarks.md": {
        name: table for name, table in TABLES.items() if name not in ON_FIRST_PAGE
    },
    DOCS / "table3.md": {"table3": ("table3_minilm", table3_tables.details)},
}

NOT_RUN = {
    "gpu": "**Not yet run on a GPU**, so there is nothing to show here: `python -m benchmarks gpu` "
    "fills this in.",
    **{
        name: f"**Not yet measured**: `python -m benchmarks {name}` fills this in."
        for name in (
            "heads",
            "encoder",
            "latency",
            "memory",
            "overload",
            "serve",
            "tasks",
            "storage",
            "backfill",
        )
    },
}
"""Routine -> what its block says until it has a result; the others must have one."""
