"""Packing beside a copy of its input."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def measured(stored: dict[str, Any]) -> str:
    """A row per shape and mode, a column per level."""
    levels = ("serial", "avx2", "avx512")
    rows = []
    for name, shape in stored["result"].items():
        for mode, by_level in shape["modes"].items():
            cells = [
                f"{by_level[level]['times_a_copy']:.2f}" if level in by_level else ""
                for level in levels
            ]
            rows.append([name, mode, *cells])
    return "\n".join([*table(["shape", "mode", *levels], rows, left=2), source(stored)])


BLOCKS = (Block("pack", measured),)
