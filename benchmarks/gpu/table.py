"""What was measured on a GPU."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import report
from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table

HEAD = (
    "encoder", "", "one text, p50 ms", "p99 ms", "texts/s", "signs as in torch fp32",
    "same label as the CPU",
)  # fmt: skip
HEADS_HEAD = (
    "a token of", "encoder", "`pool_and_pack`", "of a copy's time", "heads of 1 task, ns", "14",
    "100", "1,000",
)  # fmt: skip


def measured(stored: dict[str, Any]) -> str:
    """What `python -m benchmarks gpu` found, at 50 tokens per text and 16,384 per call."""
    result, machine = stored["result"], stored["result"]["machine"]
    rows = []
    for encoder, parts in result["encoders"].items():
        accuracy = (report.measured(parts.get("accuracy")) or {}).get("contenders", {})
        for name, outcome in parts.get("speed", {}).items():
            if (speed := report.measured(outcome)) is None:
                continue
            one = speed["latency"].get("50", {})
            many = report.measured(speed["throughput"]["random lengths"].get("16384")) or {}
            same = report.measured(accuracy.get(name)) or {}
            cells = [
                encoder,
                name,
                _shown(one.get("p50_ms"), "{:.3g}"),
                _shown(one.get("p99_ms"), "{:.3g}"),
                _shown(many.get("texts_per_s"), "{:,.0f}"),
                _shown(same.get("sign_agreement"), "{:.3%}"),
                _shown(same.get("same_label"), "{:.2%}"),
            ]
            rows.append(cells)
    lines = [*table(HEAD, rows, left=2), *_measured_kernels(result)]
    missing = report.not_measured(result)
    if missing:
        lines += [
            "",
            f"Skipped or failed: {len(missing)} measurements, each with its reason there.",
        ]
    return "\n".join([*lines, source(stored, machine["name"])])


def _measured_kernels(result: dict[str, Any]) -> list[str]:
    """The kernels by themselves: packing beside a copy and the encoder, heads by tasks."""
    rows = []
    kernels = report.measured(result.get("kernels")) or {}
    for encoder, parts in result["encoders"].items():
        share = report.measured(parts.get("share")) or {}
        shape = encoder.split(",")[0]  # of a seeded encoder, too
        beside = report.measured(kernels.get(f"{shape}, float16")) or {}
        sign = beside.get("modes", {}).get("sign", {})
        cells = [
            _shown(share.get("encoder_ns_per_token"), "{:,.0f} ns"),
            _shown(sign.get("ns_per_token"), "{:.3g} ns"),
            _shown(sign.get("times_a_copy"), "{:.2f}"),
        ]
        heads = report.measured(parts.get("heads")) or {}
        for tasks in ("1", "14", "100", "1000"):
            ns = (report.measured(heads.get(tasks)) or {}).get("ns_per_token")
            cells.append(_shown(ns, "{:.3g}" if ns is None or ns < 100 else "{:,.0f}"))
        if any(cells):
            rows.append([encoder, *cells])
    return ["", *table(HEADS_HEAD, rows)] if rows else []


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


BLOCKS = (Block("gpu", measured),)
