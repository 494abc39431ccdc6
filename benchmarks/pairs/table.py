"""Pairs: a row per encoder, and what encoding takes beside them, in a sentence."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def measured(stored: dict[str, Any]) -> str:
    """Microseconds per head; the encoder's beside them."""
    result = stored["result"]
    measures = ("text", "pair", "joint")
    rows = [
        [cell["shape"], str(cell["heads"]), *(_us(cell, what) for what in measures)]
        for cell in result["heads"]
    ]
    encoding, tokens = result["encoding"], result["text_tokens"]
    per_text, per_pair = (encoding["processor_us"][what] for what in ("text", "joint"))
    pair_us = result["heads"][0]["processor_us"]["pair"]
    lines = [
        *table(["codes of", "heads", "each text", "each pair of texts", "each pair, joined"], rows),
        "",
        f"Time of one core per head, level `{result['level']}`, signs, texts of {tokens} tokens "
        f"and joined pairs of {2 * tokens}; the least of all rounds. Encoding takes "
        f"{per_text:,.0f} us per text of {encoding['tokens']['text']:.0f} tokens "
        f"({encoding['bundle']} on {encoding['backend']}, one core), and {per_pair:,.0f} us per "
        f"joined pair of {encoding['tokens']['joint']:.0f}: to encode a pair takes as long as to "
        f"compare {per_pair / pair_us:,.0f} pairs of encoded texts by a head.",
    ]
    return "\n".join([*lines, source(stored)])


def _us(cell: dict[str, Any], what: str) -> str:
    return f"{cell['processor_us'][what]:.2f} us"


BLOCKS = (Block("pairs", measured),)
