"""Peak memory by number of texts."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import size, source, table


def measured(stored: dict[str, Any]) -> str:
    """A row per run."""
    result = stored["result"]
    head = ["texts", "a call", "tokens", "codes of a call", "after loading", "peak"]
    rows = []
    for name, found in result["runs"].items():
        cells = [
            *(f"{found[count]:,}" for count in ("texts", "texts_a_call", "tokens")),
            *(size(found[n]) for n in ("code_bytes_a_call", "loaded_rss_bytes", "peak_rss_bytes")),
            f"{result['times_warm'][name]:.2f}",
        ]
        rows.append(cells)
    backend = result["runs"]["few"]["backend"]
    lines = [
        *table([*head, "times the second"], rows, left=0),
        "",
        f"Texts of mixed lengths ({result['data']}), {backend}, {result['threads']} threads, a "
        "process each, read from a file as they are needed; the codes of a call are part of the "
        "peak. The second is the first, five times over: what is taken once is kept.",
    ]
    return "\n".join([*lines, source(stored)])


BLOCKS = (Block("memory", measured),)
