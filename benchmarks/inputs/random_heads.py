"""Random codes and heads of an encoder's shape; the same each time.

Every head has weights of its own. Copies of one head would sit in the cache and hide what reading
a thousand of them costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs.shapes import CLASSES, TEXT_TOKENS, Shape
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import (
    FeatureSpec,
    LayerPooling,
    Order,
    PositionPooling,
    Quantization,
)
from bitheads.engine.heads.head_file import FoldedHead, PairHalf

POOL = 1 << 23
"""Random numbers that are drawn; each head takes its own from another place among them."""


def spec_of(
    shape: Shape,
    quantization: Quantization,
    encoder: str = "random",
    layers: tuple[int, ...] | None = None,
) -> FeatureSpec:
    """What codes of an encoder without weights mean; as many layers as are pooled by default."""
    return FeatureSpec(
        encoder=encoder,
        weights_sha256="0" * 64,
        layers=layers or tuple(range(1, shape.pooled_layers + 1)),
        layer_pooling=LayerPooling.MEAN,
        quantization=quantization,
        order=Order.POOL_THEN_SIGN,
        dim=shape.dim,
    )


def random_codes(spec: FeatureSpec, texts: int, text_tokens: int = TEXT_TOKENS) -> PackedFeatures:
    """Codes of texts of one length; the same each time."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (texts * text_tokens, spec.code_bytes), np.uint8)
    if spec.quantization is Quantization.SIGN and spec.dim % 8:
        codes[:, -1] &= 0xFF << (8 - spec.dim % 8) & 0xFF
    return PackedFeatures(codes, np.arange(texts + 1, dtype=np.int64) * text_tokens, spec)


def random_two_texts_heads(
    spec: FeatureSpec, attention_heads: int, count: int, classes: int = CLASSES
) -> Iterator[FoldedHead]:
    """Heads of the form two_texts; vectors, and what is between them, are as wide as codes."""
    rng = np.random.default_rng(3)
    size = inner = spec.dim
    for head in random_heads(spec, attention_heads, count, classes=size):

        def draw(scale: float, *shape: int) -> NDArray[np.float32]:
            return rng.standard_normal(shape, np.float32) * np.float32(scale)

        yield replace(
            head,
            labels=head.labels[:classes],
            form="two_texts",
            pair=PairHalf(
                dense=draw(0.5 / size, inner, 4 * size + 2),
                dense_bias=draw(0.3, inner),
                output=draw(2 * inner**-0.5, classes, inner),
                output_bias=draw(0.3, classes),
            ),
        )


def random_heads(
    spec: FeatureSpec, attention_heads: int, count: int, classes: int = CLASSES
) -> Iterator[FoldedHead]:
    """Heads of different weights whose answers differ from text to text; the same each time."""
    rng = np.random.default_rng(2)
    dim = spec.dim
    pool = rng.standard_normal(max(POOL, 2 * dim * dim), np.float32)
    # Codes go up to 255 where a feature takes a byte; scores and tanh stay in the same range.
    code_size = 128 if spec.quantization is Quantization.UINT8 else 1

    def draw(scale: float, *shape: int) -> NDArray[np.float32]:
        size = int(np.prod(shape))
        start = int(rng.integers(pool.size - size + 1))
        return pool[start : start + size].reshape(shape) * np.float32(scale)

    for i in range(count):
        yield FoldedHead(
            task=f"random-{i}",
            labels=tuple(f"label-{label}" for label in range(classes)),
            form="single",
            position_pooling=PositionPooling.ATTENTION,
            spec=spec,
            query=draw(3 * dim**-0.5 / code_size, attention_heads, dim),
            value=draw(2 * dim**-0.5 / code_size, dim, dim),
            dense=draw(2 * dim**-0.5, dim, dim),
            dense_bias=draw(0.3, dim),
            output=draw(2 * dim**-0.5, classes, dim),
            output_bias=draw(0.3, classes),
        )
