"""Latency of one short text."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import duration, source, table


def measured(stored: dict[str, Any]) -> str:
    """Percentiles, and the first answer of a process."""
    result = stored["result"]
    names = {"predict": f"`predict`, {result['tasks']} tasks"}
    shown = ("p50", "p95", "p99")
    rows = [
        [names.get(name, name), *(duration(percentiles[p]) for p in shown)]
        for name, percentiles in result["us"].items()
    ]
    first, later = result["start"]["first"], result["start"]["later"]
    lines = [
        *table(["one short text", *shown], rows),
        "",
        f"{result['text_tokens']} tokens, {result['encoder']}, {result['backend']}, "
        f"{result['threads']} threads, {result['calls']} calls of each in turn. At p50 everything "
        f"but the encoder takes {duration(result['added_us'])}. From the start of a process to its "
        f"first answer: {first['first_answer_s']:.2f} s with an empty cache folder "
        f"({first['import_s']:.2f} s importing, {first['load_s']:.2f} s loading), then "
        f"{later['first_answer_s']:.2f} s ({later['load_s']:.2f} s loading).",
    ]
    return "\n".join([*lines, source(stored)])


BLOCKS = (Block("latency", measured),)
