"""Of which share of texts the C++ host finds the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def words(stored: dict[str, Any]) -> str:
    """A row per kind of tokenizer."""
    rows = [
        [kind, _share(row["real"]), _share(row["odd"])] for kind, row in stored["result"].items()
    ]
    head = ["tokenizer", "real texts with the same words", "odd texts"]
    return "\n".join([*table(head, rows, 3), source(stored, "a check, not a speed")])


def _share(row: Mapping[str, int]) -> str:
    """Of the texts that have the same ids."""
    same, texts = row["same_words"], row["same_ids"]
    return f"all of {texts:,}" if same == texts else f"{same:,} of {texts:,} ({same / texts:.2%})"


BLOCKS = (Block("host_words", words, page="docs/model_types.md"),)
