"""One process of `python -m benchmarks long_texts`: one way of encoding texts, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import child, memory

Encode = Callable[[int], None]
"""Encodes one text of that many tokens."""


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """request: way (a key of WAYS), lengths, least first, repeats of each, and what the way needs.

    Memory is that beside what the first, short text has left there: all weights, packed.
    """
    encode = WAYS[request["way"]](request)
    encode(request["lengths"][0])
    loaded = memory.now_bytes()
    rows = {}
    for length, repeats in zip(request["lengths"], request["repeats"], strict=True):
        encode(length)  # the shape is new
        times = []
        for _ in range(repeats):
            started_s = time.perf_counter()
            encode(length)
            times.append(time.perf_counter() - started_s)
        rows[str(length)] = {
            "s": min(times),
            "beside_weights_bytes": max(0, memory.peak_bytes() - loaded),
        }
    return {"loaded_rss_bytes": loaded, "lengths": rows}


def _bitheads(request: dict[str, Any]) -> Encode:
    from bitheads import Engine

    engine = Engine.load(
        request["bundle"],
        backend="openvino",
        precision=request["precision"],
        threads=request["threads"],
    )

    def encode(length: int) -> None:
        features = engine.encode([_text(length)])
        assert features.stats.num_tokens == length

    return encode


def _plain(request: dict[str, Any]) -> Encode:
    from bitheads.engine.sessions.openvino import OPENVINO_TYPES
    from bitheads.engine.sessions.openvino_core import the_core

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": request["threads"],
        "INFERENCE_PRECISION_HINT": OPENVINO_TYPES[request["precision"]],
    }
    compiled = the_core().compile_model(Path(request["graph"]), "CPU", options)
    infer = compiled.create_infer_request()

    def encode(length: int) -> None:
        ids = _ids(length)
        infer.infer({"input_ids": ids, "attention_mask": np.ones_like(ids)})

    return encode


def _transformers(request: dict[str, Any]) -> Encode:
    import torch

    from benchmarks.inputs.shapes import Shape, random_model

    torch.set_num_threads(request["threads"])
    model = random_model(Shape(**request["shape"]))
    model.set_attn_implementation("sdpa")

    def encode(length: int) -> None:
        ids = torch.from_numpy(_ids(length))
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))

    return encode


WAYS: dict[str, Callable[[dict[str, Any]], Encode]] = {
    "bitheads": _bitheads,
    "plain": _plain,
    "transformers": _transformers,
}


def _text(length: int) -> str:
    """Of so many tokens, the tokenizer's two around it included."""
    return "a " * (length - 2)


def _ids(length: int) -> Any:
    return np.full((1, length), 1037, np.int64)


if __name__ == "__main__":
    child.answer(measure)
