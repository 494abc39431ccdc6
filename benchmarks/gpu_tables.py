"""The README's tables about GPUs: predicted, compiled, measured."""

from __future__ import annotations

from typing import Any

from benchmarks import record
from benchmarks.gpu import markdown
from benchmarks.markdown import source

TASKS = "14"
SHAPE = "RoBERTa-large"
HEADS = ("packed_attention_pool", "grouped_dense")


def roofline(stored: dict[str, Any]) -> str:
    """Time a token of the encoder, and everything else as a share of it."""
    result = stored["result"]
    gpus = list(result["gpus"])
    rows = [
        "| stage | bytes a token | operations a token | " + " | ".join(_heading(result)) + " |",
        "|---|---:|---:|" + "---:|" * len(gpus),
    ]
    for name, shape in result["shapes"].items():
        by_gpu = [shape["gpus"][gpu] for gpu in gpus]

        def row(what: str, num_bytes: float, operations: float | None, cells: list[str]) -> None:
            shown = "" if operations is None else _count(operations)
            rows.append(f"| {what} | {_bytes(num_bytes)} | {shown} | {' | '.join(cells)} |")

        work = shape["work_per_token"][TASKS]
        predicted = [gpu["tasks"][TASKS] for gpu in by_gpu]
        times = [f"{p['encoder']['ns_per_token']:,.0f} ns" for p in predicted]
        row(f"**{name}** encoder", work["encoder"]["memory_bytes"], _ops(work["encoder"]), times)
        pack = work["pool_and_pack"]
        row(
            "`pool_and_pack`",
            pack["memory_bytes"],
            _ops(pack),
            [_share(p["pool_and_pack"]["share_of_encoder"]) for p in predicted],
        )
        for tasks, works in shape["work_per_token"].items():
            row(
                f"heads of {int(tasks):,} task{'s' if tasks != '1' else ''}",
                sum(works[kernel]["memory_bytes"] for kernel in HEADS),
                sum(_ops(works[kernel]) for kernel in HEADS),
                [
                    _share(sum(gpu["tasks"][tasks][k]["share_of_encoder"] for k in HEADS))
                    for gpu in by_gpu
                ],
            )
        for key, what in (("codes", "codes"), ("hidden_states", "hidden states")):
            rows.append(
                f"| {what} over the bus | {_bytes(by_gpu[0]['bus'][key]['bytes'])} | "
                f"| {' | '.join(_share(gpu['bus'][key]['share_of_encoder']) for gpu in by_gpu)} |"
            )
    assumed = result["assumptions"]
    fractions = assumed["fractions_of_peak"]
    products = max(
        gpu["tasks"][TASKS]["pool_and_pack"]["share_of_products_alone"]
        for shape in result["shapes"].values()
        for gpu in shape["gpus"].values()
    )
    rows += [
        "",
        f"The encoder's time, and other times as a share of it, for texts of "
        f"{assumed['text_tokens']} tokens in batches of {assumed['batch_tokens']:,}: "
        f"{fractions['encoder']:.0%} of the published peak in the encoder's products, "
        f"{fractions['heads']:.0%} in the heads', {fractions['memory']:.0%} of the memory's and "
        f"the bus's bandwidth, and {fractions['l2_over_memory']:g} times the memory's for the "
        f"cache, which bounds the heads on most of them. Were the encoder's activations free, "
        f"`pool_and_pack` would take {_share(products)} at most.{_not_compiled(result)}",
    ]
    return "\n".join([*rows, source(stored, "computed, not measured")])


def device_code(stored: dict[str, Any]) -> str:
    """What the compiler made of each family of kernels, beside its predicted share."""
    predicted = record.read("roofline")["result"]
    shape = predicted["shapes"][SHAPE]
    gpus = list(predicted["gpus"])
    rows = [
        "| kernels | number | registers | spilled bytes | shared bytes | load width "
        "| bytes a token | " + " | ".join(_heading(predicted)) + " |",
        "|---|---:|---:|---:|---:|---:|---:|" + "---:|" * len(gpus),
    ]
    for name, family in stored["result"]["families"].items():
        kernel, _, path = name.partition(", ")
        # The scalar path is for odd dims and addresses, which no usual encoder has.
        work = None if path == "scalar" else shape["work_per_token"][TASKS].get(kernel)
        shares = [
            _share(shape["gpus"][gpu]["tasks"][TASKS][kernel]["share_of_encoder"]) if work else ""
            for gpu in gpus
        ]
        rows.append(
            f"| `{kernel}`{', ' + path if path else ''} | {family['kernels']} "
            f"| {family['max_registers']} | {family['max_spill_bytes']} "
            f"| {family['max_shared_bytes']:,} | {family['load_bytes']} "
            f"| {_bytes(work['memory_bytes']) if work else ''} | {' | '.join(shares)} |"
        )
    architectures = stored["result"]["architectures"]
    rows += [
        "",
        f"Most of any kernel and of {architectures[0]} to {architectures[-1]}; load width in bytes "
        f"a thread in the loops. Bytes and predicted shares of the encoder's time: {SHAPE}, "
        f"{TASKS} tasks.{_not_compiled(predicted)}",
    ]
    return "\n".join([*rows, source(stored, f"{stored['result']['compiler']}, not run")])


def measured(stored: dict[str, Any]) -> str:
    """What `python -m benchmarks gpu` found, at 50 tokens and 16,384 tokens a call."""
    result, machine = stored["result"], stored["result"]["machine"]
    rows = [
        "| encoder | | one text, p50 ms | p99 ms | texts/s | signs as in torch fp32 "
        "| same label as the CPU |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for encoder, parts in result["encoders"].items():
        accuracy = (markdown.measured(parts.get("accuracy")) or {}).get("contenders", {})
        for name, outcome in parts.get("speed", {}).items():
            if (speed := markdown.measured(outcome)) is None:
                continue
            one = speed["latency"].get("50", {})
            many = markdown.measured(speed["throughput"]["random lengths"].get("16384")) or {}
            same = markdown.measured(accuracy.get(name)) or {}
            cells = [
                _shown(one.get("p50_ms"), "{:.3g}"),
                _shown(one.get("p99_ms"), "{:.3g}"),
                _shown(many.get("texts_per_s"), "{:,.0f}"),
                _shown(same.get("sign_agreement"), "{:.3%}"),
                _shown(same.get("same_label"), "{:.2%}"),
            ]
            rows.append(f"| {encoder} | {name} | {' | '.join(cells)} |")
    rows += _measured_kernels(result)
    missing = markdown.not_measured(result)
    if missing:
        rows += ["", f"Skipped or failed: {len(missing)} measurements, each with its reason there."]
    return "\n".join([*rows, source(stored, machine["name"])])


def _measured_kernels(result: dict[str, Any]) -> list[str]:
    """The kernels by themselves: packing beside a copy and the encoder, heads by tasks."""
    rows = []
    kernels = markdown.measured(result.get("kernels")) or {}
    for encoder, parts in result["encoders"].items():
        share = markdown.measured(parts.get("share")) or {}
        shape = encoder.split(",")[0]  # of a seeded encoder, too
        beside = markdown.measured(kernels.get(f"{shape}, float16")) or {}
        sign = beside.get("modes", {}).get("sign", {})
        cells = [
            _shown(share.get("encoder_ns_per_token"), "{:,.0f} ns"),
            _shown(sign.get("ns_per_token"), "{:.3g} ns"),
            _shown(sign.get("times_a_copy"), "{:.2f}"),
        ]
        heads = markdown.measured(parts.get("heads")) or {}
        for tasks in ("1", "14", "100", "1000"):
            ns = (markdown.measured(heads.get(tasks)) or {}).get("ns_per_token")
            cells.append(_shown(ns, "{:.3g}" if ns is None or ns < 100 else "{:,.0f}"))
        if any(cells):
            rows.append(f"| {encoder} | {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        "",
        "| a token of | encoder | `pool_and_pack` | of a copy's time | heads of 1 task, ns | 14 "
        "| 100 | 1,000 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
    ]


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _heading(result: dict[str, Any]) -> list[str]:
    return [name + ("" if gpu["compiled_for"] else " †") for name, gpu in result["gpus"].items()]


def _not_compiled(result: dict[str, Any]) -> str:
    missing = [
        f"{name} (compute capability {gpu['compute_capability']})"
        for name, gpu in result["gpus"].items()
        if not gpu["compiled_for"]
    ]
    if not missing:
        return ""
    return f" † {', '.join(missing)}: the device code is not compiled for it and cannot run there."


def _ops(work: dict[str, float]) -> float:
    return work["tensor_flops"] + work["fp32_ops"]


def _share(share: float) -> str:
    return f"{share:.1%}" if share < 0.995 else f"{share:.0%}"


def _bytes(value: float) -> str:
    for unit, size in (("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def _count(value: float) -> str:
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:.0f}"
