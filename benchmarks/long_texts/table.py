"""Long texts: a row per way."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import duration, size, source, table

OURS, OTHER = "bitheads, fp32", "transformers, fp32"


def measured(stored: dict[str, Any]) -> str:
    """Times, memory beside the weights, and what windows and the engine save."""
    result = stored["result"]
    ways = result["ways"]
    lengths = list(ways[OURS])
    longest = lengths[-1]
    head = ["one text of", *(f"{int(length):,} tokens" for length in lengths), "memory of the last"]
    rows = [
        [
            way,
            *(duration(1e6 * row[length]["s"]) for length in lengths),
            size(row[longest]["beside_weights_bytes"]),
        ]
        for way, row in ways.items()
    ]
    faster = ways[OTHER][longest]["s"] / ways[OURS][longest]["s"]
    windows = ways["without windows, fp32"][longest]["s"] / ways[OURS][longest]["s"]
    shape = result["shape"]
    lines = [
        *table(head, rows),
        "",
        f"A text of {int(longest):,} tokens is encoded {faster:.1f} times as fast as by "
        f"transformers with its fused attention, and {windows:.1f} times as fast as by the same "
        f"graph without windows. {shape['layers']} layers of width {shape['dim']}, seeded weights, "
        f"{result['threads']} threads; bitheads from strings to codes, the others from token ids "
        "to hidden states. Memory is the peak beside what a short text has left there.",
    ]
    return "\n".join([*lines, source(stored)])


BLOCKS = (Block("long_texts", measured),)
