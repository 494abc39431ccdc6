"""The engine as a user calls it: texts in, codes out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs.random_heads import random_heads
from bitheads import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.cpu import HeadThreads, load_head

TASKS = 14
"""Tasks of the paper."""


class Ours:
    gives = "pooled"

    def __init__(self, request: dict[str, Any]) -> None:
        self._engine = Engine.load(
            request["bundle"], request["backend"], request["threads"], request["precision"]
        )
        self._texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))
        self._threads = request["threads"]
        self._features: PackedFeatures | None = None

    def encode(self) -> None:
        self._features = self._engine.encode(self._texts)

    def padding_share(self) -> float | None:
        if self._features is None:
            return None
        stats = self._features.stats
        return stats.num_padding / (stats.num_padding + stats.num_tokens)

    def signs(self, what: str) -> NDArray[np.uint8]:
        return self._engine.encode(self._texts).codes

    def stages(self) -> dict[str, float]:
        """Seconds of each stage of one more call, and of random heads of 14 tasks on its codes."""
        features = self._engine.encode(self._texts)
        attention_heads = self._engine.manifest.encoder.attention_heads
        heads = [load_head(h) for h in random_heads(features.spec, attention_heads, TASKS)]
        with HeadThreads(self._threads) as threads:
            threads.predict(features, heads)  # its memory is there afterwards
            started_s = time.perf_counter()
            threads.predict(features, heads)
            heads_s = time.perf_counter() - started_s
        stats = features.stats
        return {
            "tokenize_s": stats.tokenize_s,
            "encode_s": stats.encode_s,
            "pack_s": stats.pack_s,
            "heads_s": heads_s,
        }


def make(request: dict[str, Any]) -> Ours:
    return Ours(request)
