"""One process of `python -m benchmarks memory`: a fresh engine encodes texts.

It imports the engine alone: torch would count, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import child, rss
from engine import Engine


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Encodes all texts of a file, in one call or several; codes of a call are dropped after it."""
    texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))
    with Engine.load(request["bundle"], threads=request["threads"]) as engine:
        loaded = rss.now_bytes()
        step = request["texts_a_call"] or len(texts)
        tokens = padding = code_bytes = 0
        for start in range(0, len(texts), step):
            features = engine.encode(texts[start : start + step])
            tokens += features.stats.num_tokens
            padding += features.stats.num_padding
            code_bytes = max(code_bytes, features.nbytes)
            del features
        return {
            "backend": engine.backend,
            "texts": len(texts),
            "tokens": tokens,
            "padding_share": padding / (tokens + padding),
            "code_bytes_a_call": code_bytes,
            "loaded_rss_bytes": loaded,
            "peak_rss_bytes": rss.peak_bytes(),
        }


if __name__ == "__main__":
    child.answer(measure)
