"""Spans: a row per position pooling, and what words cost, in a sentence."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def measured(stored: dict[str, Any]) -> str:
    """Microseconds per word and head; the cost of words beside tokenizing."""
    result = stored["result"]
    heads, tokenizing = result["heads"], result["tokenizing"]
    by_pooling: dict[str, list[str]] = {}
    for cell in heads["cells"]:
        by_pooling.setdefault(cell["pooling"], []).append(f"{cell['processor_us']:.2f} us")
    counts = list(dict.fromkeys(cell["heads"] for cell in heads["cells"]))
    columns = [f"of {count} head{'s' if count > 1 else ''}" for count in counts]
    rows = [[pooling, *cells] for pooling, cells in by_pooling.items()]
    per_text = tokenizing["processor_us"]["without_words"]
    lines = [
        *table(["position pooling", *columns], rows),
        "",
        f"Time of one core, level `{heads['level']}`, per word and head, signs at dim "
        f"{heads['dim']}, {heads['labels']} labels, "
        f"{heads['tokens'] / heads['words']:.2f} tokens per word; the least of all rounds. Making "
        f"spans of the logits takes {heads['decoding']['processor_us']['arrays']:.2f} us per word "
        f"more. Finding words adds {tokenizing['added']:.0%} to tokenizing ({per_text:.0f} us of a "
        f"processor per text of {tokenizing['tokens'] / tokenizing['texts']:.0f} tokens), where a "
        f"head asks for them. {tokenizing['ascii_texts'] / tokenizing['texts']:.0%} of the texts "
        "are in ASCII; of others the tokenizer library is asked for the places of tokens, which "
        f"by itself would add {tokenizing['added_by_library']:.0%} if it was asked for all.",
    ]
    return "\n".join([*lines, source(stored)])


BLOCKS = (Block("spans", measured),)
