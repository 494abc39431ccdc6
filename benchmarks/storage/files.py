"""Files of codes: of which hidden states, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.packing import PackCall
from benchmarks.inputs.shapes import TEXT_TOKENS, Shape
from bitheads.engine.features.spec import Quantization

BATCH_TEXTS = 20
PRECISIONS = {
    "fp16": Quantization.FLOAT16,
    "uint8": Quantization.UINT8,
    "sign": Quantization.SIGN,
}

Layers = Sequence[NDArray[Any]]
"""Hidden states of all layers, ascending, each [texts, tokens, dim]."""


@dataclass(frozen=True)
class Features:
    """What is written.

    Attributes:
        source: where they come from, for people.
        pooled_layers: how many of the last layers the mean is of.
    """

    source: str
    layers: Layers
    pooled_layers: int


def write(file: Path, features: Features, pooling: str, positions: str, precision: str) -> None:
    """The codes of all texts, one layer pooling after another, as raw bytes."""
    layers = features.layers
    if positions == "one vector":
        layers = [layer.mean(axis=1, keepdims=True, dtype=np.float32) for layer in layers]
    of_pooling: dict[str, list[Layers]] = {
        "every layer": [[layer] for layer in layers],
        "mean": [layers[-features.pooled_layers :]],
        "last": [layers[-1:]],
    }
    with file.open("wb") as target:
        for group in of_pooling[pooling]:
            packing = PackCall(group, PRECISIONS[precision].value)
            packing()
            packing.codes.tofile(target)


def seeded(shape: Shape, texts: int) -> Features:
    """Random hidden states of an encoder's shape; the same each time."""
    rng = np.random.default_rng(0)
    size = (texts, TEXT_TOKENS, shape.dim)
    layers = [rng.standard_normal(size, np.float32).astype(np.float16) for _ in range(shape.layers)]
    return Features("seeded random numbers", layers, shape.pooled_layers)
