"""The torch head against torch's own attention, and the folded head against the torch head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitheads import (
    Calibration,
    FeatureSpec,
    LayerPooling,
    Order,
    PackedFeatures,
    Quantization,
)
from bitheads.engine.features.codes import code_affine
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads import float_heads
from bitheads.export.fold import fold
from bitheads.training.heads.batch_inputs import padded
from bitheads.training.heads.fit import evaluate
from bitheads.training.heads.task_head import TaskHead

DIM, HEADS, CLASSES = 64, 4, 5


def spec_of(quantization: Quantization) -> FeatureSpec:
    return FeatureSpec(
        encoder="test",
        weights_sha256="0" * 64,
        layers=(1, 2),
        layer_pooling=LayerPooling.MEAN,
        quantization=quantization,
        order=Order.POOL_THEN_SIGN,
        dim=DIM,
    )


def random_features(quantization: Quantization, seed: int = 0) -> PackedFeatures:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 40, 30)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    spec = spec_of(quantization)
    if quantization is Quantization.FLOAT16:
        values = rng.normal(size=(offsets[-1], DIM)).astype(np.float16)
        return PackedFeatures(values.view(np.uint8), offsets, spec)
    codes = rng.integers(0, 256, (offsets[-1], spec.code_bytes), dtype=np.uint8)
    calibration = None
    if quantization is Quantization.UINT8:
        scale = rng.uniform(0.005, 0.02, DIM).astype(np.float32)
        calibration = Calibration(scale=scale, zero_point=np.float32(rng.integers(90, 160, DIM)))
    return PackedFeatures(codes, offsets, spec, calibration)


def random_task_head(pooling: PositionPooling, seed: int = 0) -> TaskHead:
    torch.manual_seed(seed)
    head = TaskHead(DIM, CLASSES, HEADS, pooling).eval()
    with torch.no_grad():  # biases start at zero, where a mistake in folding them would hide
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


def plainly(head: TaskHead, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The head as the paper draws it, with torch's own multi-head attention."""
    if head.position_pooling is PositionPooling.ATTENTION:
        query = head.query.expand(len(features), 1, DIM)
        pooled = head.attention(query, features, features, key_padding_mask=~mask)[0][:, 0]
    elif head.position_pooling is PositionPooling.MEAN:
        pooled = torch.stack([f[m].mean(dim=0) for f, m in zip(features, mask, strict=True)])
    elif head.position_pooling is PositionPooling.CLS:
        pooled = features[:, 0]
    else:
        pooled = torch.stack([f[m][-1] for f, m in zip(features, mask, strict=True)])
    logits: torch.Tensor = head.output(torch.tanh(head.dense(pooled)))
    return logits


@pytest.mark.parametrize("pooling", list(PositionPooling))
def test_equals_torch_attention_with_gradients(pooling: PositionPooling) -> None:
    head = random_task_head(pooling)
    features, mask = padded(random_features(Quantization.SIGN), np.arange(30))
    ours, expected = head(features, mask), plainly(head, features, mask)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(expected)
    parameters = list(head.parameters())
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_padding_does_not_matter() -> None:
    head = random_task_head(PositionPooling.ATTENTION)
    packed = random_features(Quantization.SIGN)
    together = evaluate(head, packed)
    alone = np.concatenate([evaluate(head, packed[i]) for i in range(len(packed))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("pooling", list(PositionPooling))
@pytest.mark.parametrize("quantization", list(Quantization))
def test_folded_equals_trained(pooling: PositionPooling, quantization: Quantization) -> None:
    head = random_task_head(pooling)
    packed = random_features(quantization)
    scale, offset = code_affine(packed.spec, packed.calibration)
    folded = fold(
        head.trained(),
        scale,
        offset,
        task="test",
        labels=tuple("abcde"),
        form="single",
        spec=packed.spec,
        metrics={},
        training={},
    )
    with torch.inference_mode():
        expected: NDArray[np.float32] = plainly(head, *padded(packed, np.arange(30))).numpy()
    (logits,) = float_heads.predict_heads(packed, [folded])
    assert np.abs(expected).max() > 0.3
    assert np.abs(logits - expected).max() <= 1e-4
