"""Features of recipes against the definitions, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from bitheads.engine.features.packed import PackedFeatures
from bitheads.training.heads.layer_features import LayerFeatures
from bitheads.training.table3.features import make_features as grid_features
from bitheads.training.table3.features.make_features import StoredLayers, make_features, rotation
from bitheads.training.table3.features.recipe import Recipe

DIM, LAYERS = 16, 3


def stored(texts: int, seed: int) -> StoredLayers:
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 9, texts))]).astype(np.int64)
    values = random.normal(0.3, 1, (offsets[-1], LAYERS + 1, DIM)).astype(np.float16)
    return StoredLayers(values, offsets, tuple(range(LAYERS + 1)), LAYERS)


TASK, OTHER = stored(20, seed=1), stored(9, seed=2)
MEAN = TASK.values[:, 2:].astype(np.float32).mean(axis=1)
OTHER_MEAN = OTHER.values[:, 2:].astype(np.float32).mean(axis=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_features, "CHUNK_TOKENS", 7)


def values(text: str) -> np.ndarray:
    made = make_features(TASK, Recipe.parse(text), OTHER)
    assert isinstance(made, PackedFeatures)
    np.testing.assert_array_equal(made.offsets, TASK.offsets)
    return made.unpack()


def signs(features: np.ndarray) -> np.ndarray:
    return np.where(features > 0, 1, -1)


def test_floats() -> None:
    np.testing.assert_allclose(values("mean-2/attention/float"), MEAN, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(values("last/cls/float"), TASK.values[:, -1])


def test_uint8_is_near() -> None:
    step = (OTHER_MEAN.max(axis=0) - OTHER_MEAN.min(axis=0)) / 255
    inside = (OTHER_MEAN.max(axis=0) > MEAN) & (OTHER_MEAN.min(axis=0) < MEAN)
    error = np.abs(values("mean-2/attention/uint8") - MEAN)
    assert (error <= step)[inside].all()


def test_signs() -> None:
    np.testing.assert_array_equal(values("mean-2/attention/sign"), signs(MEAN))


def test_votes() -> None:
    positive = (TASK.values[:, 1:] > 0).sum(axis=1)
    np.testing.assert_array_equal(values("mean-3/attention/vote"), signs(positive - 1.5))


@pytest.mark.parametrize(("codes", "center"), [("centred", np.mean), ("median", np.median)])
def test_thresholds_are_of_other_texts(codes: str, center: type) -> None:
    expected = signs(MEAN - center(OTHER_MEAN, axis=0))
    assert (values(f"mean-2/attention/{codes}") == expected).mean() > 0.999


def test_two_bits() -> None:
    cuts = np.quantile(OTHER_MEAN, (1 / 3, 2 / 3), axis=0)
    expected = np.concatenate([signs(MEAN - cut) for cut in cuts], axis=1)
    assert (values("mean-2/attention/two-bit") == expected).mean() > 0.999


@pytest.mark.parametrize(("codes", "width"), [("rotated", 1), ("wide", 2), ("wide-raw", 2)])
def test_rotations(codes: str, width: int) -> None:
    matrix = rotation(DIM, width, grid_features.ROTATION_SEED)
    np.testing.assert_allclose(matrix[:, :DIM].T @ matrix[:, :DIM], np.eye(DIM), atol=1e-6)
    center = 0 if codes == "wide-raw" else OTHER_MEAN.mean(axis=0)
    got = values(f"mean-2/attention/{codes}")
    assert got.shape == (len(MEAN), width * DIM)
    assert (got == signs((MEAN - center) @ matrix)).mean() > 0.999


def test_rotated_floats_keep_all_there_is() -> None:
    got = values("mean-2/attention/wide-float")
    matrix = rotation(DIM, 2, grid_features.ROTATION_SEED)
    np.testing.assert_allclose(got @ matrix.T / 2, MEAN, atol=5e-3)


def test_learned_weights_read_every_layer() -> None:
    made = make_features(TASK, Recipe.parse("learned/attention/float"), OTHER)
    assert isinstance(made, LayerFeatures)
    np.testing.assert_array_equal(made.values, TASK.values)
    assert len(made) == 20
