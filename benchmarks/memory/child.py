"""One process of `python -m benchmarks memory`: a fresh engine encodes texts.

It imports the engine alone: torch would count, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.processes import child, memory
from bitheads import Engine, PackedFeatures


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Encodes the lines of a file, in one call or as a stream; codes of a chunk are dropped."""
    file, chunk = Path(request["texts"]), request["texts_a_call"]
    with Engine.load(request["bundle"], threads=request["threads"]) as engine:
        loaded = memory.now_bytes()
        tokens = padding = code_bytes = count = 0
        for features in _encode(engine, file, chunk, request["rounds"]):
            count += len(features)
            tokens += features.stats.num_tokens
            padding += features.stats.num_padding
            code_bytes = max(code_bytes, features.nbytes)
            del features
        return {
            "backend": engine.backend,
            "texts": count,
            "tokens": tokens,
            "padding_share": padding / (tokens + padding),
            "code_bytes_a_call": code_bytes,
            "loaded_rss_bytes": loaded,
            "peak_rss_bytes": memory.peak_bytes(),
        }


def _encode(engine: Engine, file: Path, chunk: int | None, rounds: int) -> Iterator[PackedFeatures]:
    for _ in range(rounds):
        if chunk is None:
            yield engine.encode(list(_read(file)))
        else:
            yield from engine.encode_stream(_read(file), chunk)


def _read(file: Path) -> Iterator[str]:
    """Line by line: texts that are not needed yet take no memory."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


if __name__ == "__main__":
    child.answer(measure)
