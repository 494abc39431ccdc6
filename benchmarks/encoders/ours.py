"""The engine as a user calls it: texts in, codes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import Engine
from engine.types import PackedFeatures


class Ours:
    gives = "pooled"

    def __init__(self, request: dict[str, Any]) -> None:
        self._engine = Engine.load(
            request["bundle"], request["backend"], request["threads"], request["precision"]
        )
        self._texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))
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


def make(request: dict[str, Any]) -> Ours:
    return Ours(request)
