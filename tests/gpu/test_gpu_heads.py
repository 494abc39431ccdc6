"""Heads on the GPU answer as NumPy's do, whatever the codes, the pooling, the number of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_heads import random_head

from bitheads import FeatureSpec, PositionPooling
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import LayerPooling, Order, Quantization
from bitheads.engine.heads.cpu import predict_heads
from bitheads.engine.predictions import Prediction

TOLERANCE = 2e-2
"""Of logits that are a few units large: weights, pooled codes and activations are float16."""


def make_spec(quantization: str, dim: int) -> FeatureSpec:
    return FeatureSpec(
        encoder="random",
        weights_sha256="0" * 64,
        layers=(1, 2),
        layer_pooling=LayerPooling.MEAN,
        quantization=Quantization(quantization),
        order=Order.POOL_THEN_SIGN,
        dim=dim,
    )


def make_features(spec: FeatureSpec, lengths: list[int]) -> PackedFeatures:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    size = (int(offsets[-1]), spec.dim)
    if spec.quantization is Quantization.FLOAT16:
        codes = rng.standard_normal(size).astype(np.float16).view(np.uint8)
    elif spec.quantization is Quantization.UINT8:
        codes = rng.integers(0, 256, size, np.uint8)
    else:
        codes = np.packbits(rng.integers(0, 2, size, np.uint8), axis=1)
    return PackedFeatures(codes, offsets, spec)


def check(gpu: Any, features: PackedFeatures, heads: list[Any]) -> None:
    from bitheads.engine.device.heads import DeviceHeads

    expected = predict_heads(features, heads)
    with gpu.device.current("testing the task heads"):
        device_heads = DeviceHeads(gpu.device, gpu.code, features.spec, gpu.stream)
        try:
            got = device_heads.predict(features, heads)
        finally:
            device_heads.close()
    assert list(got) == list(expected)
    for task, answer in expected.items():
        compare(got[task], answer, task)


def compare(got: Prediction, expected: Prediction, what: str) -> None:
    """Logits within TOLERANCE, and the same label wherever that decides it."""
    assert got.labels == expected.labels
    np.testing.assert_allclose(got.logits, expected.logits, atol=TOLERANCE, rtol=0, err_msg=what)
    first, second = np.sort(expected.logits, axis=1)[:, [-1, -2]].T
    decided = first - second > 2 * TOLERANCE
    same = got.logits.argmax(axis=1) == expected.logits.argmax(axis=1)
    assert same[decided].all(), what


@pytest.mark.parametrize("dim", [8, 64, 384, 1024])
@pytest.mark.parametrize("quantization", ["sign", "uint8", "float16"])
def test_one_head_of_each_pooling(gpu: Any, quantization: str, dim: int) -> None:
    spec = make_spec(quantization, dim)
    features = make_features(spec, [1, 2, 7, 8, 9, 50, 64, 65, 200, 512])
    heads = [
        random_head(spec, f"task-{pooling.value}", pooling, classes=2 + i, seed=i)
        for i, pooling in enumerate(PositionPooling)
    ]
    check(gpu, features, heads)


@pytest.mark.parametrize("tasks", [1, 4, 5, 14, 100])
def test_any_number_of_tasks(gpu: Any, tasks: int) -> None:
    """Classes differ from task to task; 150 take several tiles of outputs."""
    spec = make_spec("sign", 384)
    features = make_features(spec, list(range(1, 131)))
    heads = [
        random_head(spec, f"task-{i}", classes=(2, 3, 9, 64, 65, 150)[i % 6], seed=i)
        for i in range(tasks)
    ]
    check(gpu, features, heads)
