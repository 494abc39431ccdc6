"""Heads in torch compute what the project's do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.contenders.torch_heads import (
    FoldedTorchHeads,
    Unpacker,
    UsualHeads,
    packed,
    to_features,
)
from benchmarks.heads import accuracy
from benchmarks.heads.cases import QUICK
from benchmarks.inputs.random_heads import random_codes, spec_of
from bitheads.engine import Calibration, Quantization
from bitheads.engine.features.codes import code_affine, unpack
from bitheads.engine.heads import float_heads
from bitheads.export.fold import fold
from bitheads.training.heads.task_head import TaskHead

SHAPE = QUICK.encoders["tiny"]
BOTH = [Quantization.SIGN, Quantization.UINT8]


@pytest.mark.parametrize("quantization", BOTH)
def test_the_usual_and_the_folded_form_in_torch_are_one_function(
    quantization: Quantization,
) -> None:
    spec = spec_of(SHAPE, quantization)
    features = random_codes(spec, 40, text_tokens=7)  # more than a block of texts
    calibration = Calibration(
        scale=np.linspace(0.005, 0.02, spec.dim, dtype=np.float32),
        zero_point=np.linspace(90, 160, spec.dim, dtype=np.float32),
    )
    scale, offset = code_affine(spec, calibration)
    torch.manual_seed(0)
    trained = [TaskHead(spec.dim, 3, SHAPE.attention_heads).eval() for _ in range(2)]
    with torch.no_grad():  # biases start at zero, where a mistake in folding them would hide
        for parameter in (p for head in trained for p in head.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    folded = [
        fold(
            head.trained(),
            scale,
            offset,
            task=f"task-{i}",
            labels=("a", "b", "c"),
            form="single",
            spec=spec,
            metrics={},
            training={},
        )
        for i, head in enumerate(trained)
    ]
    in_torch = Unpacker(spec)
    codes = in_torch(packed(features))
    usual = UsualHeads(trained)(to_features(codes, scale, offset))
    stacked = FoldedTorchHeads(folded)(codes)
    from_packed = FoldedTorchHeads(folded)(packed(features), in_torch)
    assert torch.equal(from_packed, stacked)
    floats = float_heads.predict_heads(features, folded)
    for i, head in enumerate(folded):
        expected = accuracy.evaluate(features, head)
        np.testing.assert_allclose(usual[i], expected, atol=2e-4)
        np.testing.assert_allclose(stacked[i], expected, atol=2e-4)
        np.testing.assert_allclose(floats[i], expected, atol=2e-4)


@pytest.mark.parametrize("dim", [64, 60])
def test_unpacking_in_torch_is_ours(dim: int) -> None:
    for quantization in BOTH:
        features = random_codes(spec_of(replace(SHAPE, dim=dim), quantization), 3)
        ones, zeros = np.ones(dim, np.float32), np.zeros(dim, np.float32)
        expected = unpack(features.codes, dim, quantization.value, ones, zeros)
        np.testing.assert_array_equal(
            Unpacker(features.spec)(packed(features)).reshape(-1, dim), expected
        )
