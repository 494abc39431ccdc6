"""Predicted times on known GPUs."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table

TASKS = "14"
HEADS = ("packed_attention_pool", "grouped_dense")


def measured(stored: dict[str, Any]) -> str:
    """The encoder's time per token, and everything else as a share of it."""
    result = stored["result"]
    gpus = list(result["gpus"])
    rows = table(["stage", "bytes a token", "operations a token", *heading(result)], [])
    for name, shape in result["shapes"].items():
        by_gpu = [shape["gpus"][gpu] for gpu in gpus]

        def row(what: str, num_bytes: float, operations: float | None, cells: list[str]) -> None:
            shown = "" if operations is None else tenths(operations)
            rows.append(f"| {what} | {tenths(num_bytes, 'B')} | {shown} | {' | '.join(cells)} |")

        work = shape["work_per_token"][TASKS]
        predicted = [gpu["tasks"][TASKS] for gpu in by_gpu]
        times = [f"{p['encoder']['ns_per_token']:,.0f} ns" for p in predicted]
        row(f"**{name}** encoder", work["encoder"]["memory_bytes"], _ops(work["encoder"]), times)
        pack = work["pool_and_pack"]
        row(
            "`pool_and_pack`",
            pack["memory_bytes"],
            _ops(pack),
            [percent(p["pool_and_pack"]["share_of_encoder"]) for p in predicted],
        )
        for tasks, works in shape["work_per_token"].items():
            row(
                f"heads of {int(tasks):,} task{'s' if tasks != '1' else ''}",
                sum(works[kernel]["memory_bytes"] for kernel in HEADS),
                sum(_ops(works[kernel]) for kernel in HEADS),
                [
                    percent(sum(gpu["tasks"][tasks][k]["share_of_encoder"] for k in HEADS))
                    for gpu in by_gpu
                ],
            )
        for key, what in (("codes", "codes"), ("hidden_states", "hidden states")):
            rows.append(
                f"| {what} over the bus | {tenths(by_gpu[0]['bus'][key]['bytes'], 'B')} | "
                f"| {' | '.join(percent(gpu['bus'][key]['share_of_encoder']) for gpu in by_gpu)} |"
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
        f"`pool_and_pack` would take {percent(products)} at most.{not_compiled(result)}",
    ]
    return "\n".join([*rows, source(stored, "computed, not measured")])


def heading(result: dict[str, Any]) -> list[str]:
    """A column per GPU."""
    return [name + ("" if gpu["compiled_for"] else " †") for name, gpu in result["gpus"].items()]


def not_compiled(result: dict[str, Any]) -> str:
    """What the dagger of a heading says, empty without one."""
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


def percent(share: float) -> str:
    """Of a share: 4.5%, 120%."""
    return f"{share:.1%}" if share < 0.995 else f"{share:.0%}"


def tenths(value: float, unit: str = "") -> str:
    """With one digit after the point: 22.2 M, 9.4 KB, 128 B."""
    for prefix, factor in (("M", 1e6), ("K", 1e3)):
        if value >= factor:
            return f"{value / factor:,.1f} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


BLOCKS = (Block("roofline", measured),)
