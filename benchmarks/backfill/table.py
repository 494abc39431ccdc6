"""What new tasks over a store cost."""

from __future__ import annotations

from typing import Any

from benchmarks.backfill.costs import DOLLARS_A_CORE_HOUR, by_machine, three_digits
from benchmarks.pages.block import Block
from benchmarks.pages.markdown import size, source, table

DOLLARS_A_GB_MONTH = 0.023
"""Dollars that clouds ask for an object store."""


def measured(stored: dict[str, Any]) -> str:
    """A row for each shape and number of tasks; below, what a text takes."""
    result = stored["result"]
    head = ["store of", "new tasks", "texts/s and core", "of the kernel alone"]
    rows = []
    notes = []
    for name, shape in result["shapes"].items():
        for tasks, found in shape["tasks"].items():
            rows.append(
                [
                    name,
                    tasks,
                    f"{found['texts_a_second_and_core']:,.0f}",
                    f"{found['share_of_kernel']:.0%}",
                    f"{found['all_cores_texts_a_second']:,.0f}",
                    f"{found['times_encoding']:,.0f}",
                ]
            )
        bytes_of = shape["of_50_tokens"]
        notes.append(
            f"{name}: {shape['texts']:,} texts of {shape['tokens_a_text']:.0f} tokens on average, "
            f"{size(shape['bytes_a_text'])} a text in the store's files; encoding takes "
            f"{shape['encoding_us_a_text'] / 1000:.3g} ms a text on one core "
            f"({shape['encoder']['backend']}). A text of 50 tokens takes {size(bytes_of['sign'])}, "
            f"in uint8 {size(bytes_of['uint8'])}, in fp16 {size(bytes_of['float16'])}, with all "
            f"layers in fp16 {size(bytes_of['all layers float16'])}."
        )
    lines = [
        *table([*head, "on all cores, texts/s", "times re-encoding"], rows),
        "",
        *_billion(result["shapes"]),
        "",
        *by_machine(result["shapes"]),
        "",
        f"{' '.join(notes)} Seeded codes, lengths of real texts ({result['data']}); a backfill "
        "reads, checks, answers and writes, from opening the store to answers that are on disk. "
        f"The kernel is `predict_heads` at `{result['level']}` on codes in memory.",
    ]
    return "\n".join([*lines, source(stored)])


def stored_texts(stored: dict[str, Any]) -> str:
    """What a new task over kept features costs, in a sentence."""
    shapes = list(stored["result"]["shapes"].items())
    first = shapes[-1][1]["tasks"]["1"]["times_encoding"]
    others = " and ".join(
        f"{shape['tasks']['1']['times_encoding']:,.0f} times with {name}'s shape"
        for name, shape in shapes[:-1]
    )
    return (
        f"**A new task over stored texts is {first:,.0f} times as fast as encoding them again** "
        f"with {shapes[-1][0]}, {others}: read, checked, answered and written on one core, texts "
        f"of {shapes[-1][1]['tokens_a_text']:.0f} tokens on average."
    )


def _billion(shapes: dict[str, Any]) -> list[str]:
    """What a billion such texts come to."""
    counts = list(next(iter(shapes.values()))["tasks"])
    head = ["a billion texts of", "stored", "a month", "encoding, core-hours"]
    head += [f"{count} new task{'s' * (count != '1')}, core-hours" for count in counts]
    rows = []
    for name, shape in shapes.items():
        stored = 1e9 * shape["bytes_a_text"]
        hours = [shape["encoding_us_a_text"] * 1e3 / 3600]
        hours += [
            1e9 / found["texts_a_second_and_core"] / 3600 for found in shape["tasks"].values()
        ]
        cells = [
            f"{three_digits(hour)} (${three_digits(DOLLARS_A_CORE_HOUR * hour)})" for hour in hours
        ]
        rows.append(
            [
                f"{name}, {shape['tokens_a_text']:.0f} tokens",
                f"{stored / 1e12:.3g} TB",
                f"${stored / 1e9 * DOLLARS_A_GB_MONTH:,.0f}",
                *cells,
            ]
        )
    return [
        *table(head, rows),
        "",
        f"At ${DOLLARS_A_CORE_HOUR:g} a core-hour and ${DOLLARS_A_GB_MONTH:g} a GB and month.",
    ]


BLOCKS = (
    Block("backfill", measured),
    Block("stored_texts", stored_texts, page="README.md"),
)
