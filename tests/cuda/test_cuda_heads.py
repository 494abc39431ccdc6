"""Whole heads on the CUDA kernels, run on the host, against `engine.heads.cpu.predict_heads`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from host_heads import Dense, GuardedArray, HostHeads
from host_kernels import HostKernels
from numpy.typing import NDArray
from random_heads import random_head

from bitheads import (
    FeatureSpec,
    LayerPooling,
    Order,
    PackedFeatures,
    PositionPooling,
    Quantization,
)
from bitheads.engine.heads.cpu import predict_heads
from bitheads.engine.heads.head_file import FoldedHead

ATTENTION, MEAN, CLS, LAST = (
    PositionPooling(name) for name in ("attention", "mean", "cls", "last")
)
TOLERANCE = 2e-3  # of a probability: SPEC.md
END_BIAS = {CLS: (1e30, 0.0), LAST: (0.0, 1e30)}
"""Of the first and the last token."""


def make_features(
    rng: np.random.Generator, lengths: Sequence[int], dim: int, quantization: str
) -> PackedFeatures:
    spec = FeatureSpec(
        encoder="tiny",
        weights_sha256="0" * 64,
        layers=(2, 3),
        layer_pooling=LayerPooling.MEAN,
        quantization=Quantization(quantization),
        order=Order.POOL_THEN_SIGN,
        dim=dim,
    )
    tokens = sum(lengths)
    if quantization == "sign":
        codes = np.packbits(rng.random((tokens, dim)) < 0.5, axis=1)
    elif quantization == "uint8":
        codes = rng.integers(0, 256, (tokens, dim)).astype(np.uint8)
    else:
        codes = rng.normal(0, 1, (tokens, dim)).astype(np.float16).view(np.uint8)
    return PackedFeatures(codes, np.cumsum([0, *lengths]), spec)


def predict_on_host(
    device: HostHeads, features: PackedFeatures, heads: Sequence[FoldedHead]
) -> list[NDArray[np.float32]]:
    """Logits float32 [texts, classes] of each head: four launches, whatever the number of heads."""
    texts, dim = len(features), features.spec.dim
    quantization = features.spec.quantization.value
    queries = [np.zeros((1, dim), np.float32) if h.query is None else h.query for h in heads]
    biases = [
        np.tile(np.float32(END_BIAS.get(head.position_pooling, (0.0, 0.0))), (len(query), 1))
        for head, query in zip(heads, queries, strict=True)
    ]
    pooled = device.attention_pool(
        features.codes,
        features.offsets,
        device.lay_out_queries(np.concatenate(queries), quantization),
        np.concatenate(biases),
        dim=dim,
        quantization=quantization,
    )
    values, dense, output = [], [], []
    column = 0
    for head, query in zip(heads, queries, strict=True):
        if head.value is None:
            inner = pooled[:, column, :dim]
        else:
            inner = GuardedArray((texts, dim), np.float16).array
            n = dim // len(query)
            for i in range(len(query)):
                rows = slice(i * n, i * n + n)
                weights = device.lay_out_dense(head.value[rows])
                inputs = pooled[:, column + i, :dim]
                values.append(Dense(inputs, weights, None, inner[:, rows]))
        column += len(query)
        hidden = GuardedArray((texts, len(head.dense)), np.float16).array
        weights = device.lay_out_dense(head.dense)
        dense.append(Dense(inner, weights, head.dense_bias, hidden))
        logits = GuardedArray((texts, len(head.labels)), np.float32).array
        weights = device.lay_out_dense(head.output)
        output.append(Dense(hidden, weights, head.output_bias, logits))
    device.grouped_dense(values, texts)
    device.grouped_dense(dense, texts, tanh=True)
    device.grouped_dense(output, texts, output="float32")
    return [group.outputs for group in output]


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    normalized: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalized


@pytest.mark.parametrize("quantization", ["sign", "uint8", "float16"])
@pytest.mark.parametrize("dim", [4, 36, 100, 384])
def test_predicts_as_the_engine_does(
    host_kernels: HostKernels, dim: int, quantization: str
) -> None:
    """All position poolings, two to 150 labels, texts of 1 to 300 tokens in one call."""
    rng = np.random.default_rng(dim)
    features = make_features(rng, [1, 2, 7, 300, 63, 64, 65, 20], dim, quantization)
    poolings = [ATTENTION, MEAN, ATTENTION, CLS, ATTENTION, LAST]
    heads = [
        random_head(features.spec, f"task-{i}", pooling, classes, seed=i)
        for i, (pooling, classes) in enumerate(zip(poolings, [2, 3, 150, 4, 7, 5], strict=True))
    ]
    expected = predict_heads(features, heads)
    logits = predict_on_host(HostHeads(host_kernels), features, heads)
    for head, got in zip(heads, logits, strict=True):
        difference = probabilities(got) - probabilities(expected[head.task].logits)
        assert np.abs(difference).max() <= TOLERANCE, head.task
