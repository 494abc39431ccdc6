"""Heads, codes and calls for the tests of `predict_heads` and its reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine import FeatureSpec, LayerPooling, Order, PositionPooling, Quantization, pack
from engine.head_file import FoldedHead

POOLINGS = ("attention", "mean", "cls")
QUANTIZATIONS = ("sign", "uint8")


def make_spec(quantization: str, dim: int) -> FeatureSpec:
    return FeatureSpec(
        encoder="tiny",
        weights_sha256="0" * 64,
        layers=(2, 3),
        layer_pooling=LayerPooling.MEAN,
        quantization=Quantization(quantization),
        order=Order.POOL_THEN_SIGN,
        dim=dim,
    )


def make_head(
    seed: int,
    quantization: str,
    dim: int,
    pooling: str = "attention",
    *,
    attention_heads: int = 1,
    inner: int | None = None,
    classes: int = 3,
    sharpness: float = 3.0,
) -> FoldedHead:
    """Random weights; scores have a standard deviation near `sharpness` / 2 over tokens."""
    rng = np.random.default_rng(seed)
    inner = dim if inner is None else inner
    code_size = 128 if quantization == "uint8" else 1
    attends = pooling == "attention"

    def draw(*shape: int, scale: float) -> NDArray[np.float32]:
        return (rng.normal(0, scale, shape)).astype(np.float32)

    return FoldedHead(
        task=f"task-{seed}",
        labels=tuple(f"label-{i}" for i in range(classes)),
        form="single",
        position_pooling=PositionPooling(pooling),
        spec=make_spec(quantization, dim),
        query=draw(attention_heads, dim, scale=sharpness * dim**-0.5 / code_size)
        if attends
        else None,
        value=draw(dim, dim, scale=2 * dim**-0.5 / code_size) if attends else None,
        dense=draw(inner, dim, scale=2 * dim**-0.5 / (1 if attends else code_size)),
        dense_bias=draw(inner, scale=0.3),
        output=draw(classes, inner, scale=2 * inner**-0.5),
        output_bias=draw(classes, scale=0.3),
    )


def make_codes(seed: int, quantization: str, dim: int, tokens: int) -> NDArray[np.uint8]:
    """uint8 [tokens, code_bytes]: any bytes, so of signs the trailing bits, too."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (tokens, pack.code_bytes(dim, quantization)), dtype=np.uint8)


def offsets_of(lengths: Sequence[int], first: int = 0) -> NDArray[np.int64]:
    """int64 [texts + 1]."""
    return np.cumsum([first, *lengths])
