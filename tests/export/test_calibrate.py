"""Codes are what the source model says: thresholds, scales, weights and votes, from torch alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tiny_encoders import MAX_LENGTH

from bitheads import BundleError, Engine, LayerPooling, Order, PackedFeatures, Quantization
from bitheads.engine.bundle import CALIBRATION, read_manifest
from bitheads.engine.features import reference
from bitheads.export.calibrate import calibrate, pool_layers
from bitheads.export.comparison.reference_model import ReferenceModel
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle
from bitheads.export.texts import read_texts

WEIGHTS = (0.7, -0.4)
BACKEND_ERROR = 0.01
"""Error of the mean of two layers, between torch in fp32 and the fp16 graph."""


@pytest.fixture(scope="module")
def hidden_states(
    tiny_encoder: Callable[[str], Path], few_texts: Path
) -> Callable[[Path | None], list[NDArray[np.float32]]]:
    """Texts -> transformers' layers 2 and 3 of the tiny BERT, float32 [tokens, dim]."""
    reference = ReferenceModel(str(tiny_encoder("bert")), MAX_LENGTH)

    @cache
    def run(path: Path | None) -> list[NDArray[np.float32]]:
        texts = [reference.tokens(text) for text in read_texts(path)]
        parts = [reference.states(text, (2, 3)).layers for text in texts]
        return [np.concatenate(layer) for layer in zip(*parts, strict=True)]

    return lambda path: run(path or few_texts)


@pytest.fixture(scope="module")
def encode(build_bundle: Callable[..., Path], few_texts: Path) -> Callable[..., PackedFeatures]:
    """Build options -> the calibration texts, encoded by the bundle."""

    def run(**options: Any) -> PackedFeatures:
        engine = Engine.load(build_bundle("bert", **options), backend="onnxruntime")
        return engine.encode(read_texts(few_texts))

    return run


def signs(features: PackedFeatures) -> NDArray[np.bool_]:
    return features.unpack() > 0


def assert_signs(
    features: PackedFeatures, expected: NDArray[np.bool_], margin: NDArray[np.float32]
) -> None:
    """Signs are equal where the margin is above the backend's error, which is nearly everywhere."""
    clear = margin > BACKEND_ERROR
    assert clear.mean() > 0.95
    assert np.array_equal(signs(features)[clear], expected[clear])


def test_zero_thresholds_are_signs_of_the_mean(hidden_states: Any, encode: Any) -> None:
    mean = np.mean(hidden_states(None), axis=0)
    features = encode()
    assert features.calibration is None
    assert features.spec.calibration_sha256 is None
    assert_signs(features, mean > 0, np.abs(mean))


@pytest.mark.parametrize("center", ["mean", "median"])
def test_centred_thresholds(hidden_states: Any, encode: Any, center: str) -> None:
    mean = np.mean(hidden_states(None), axis=0)
    thresholds = {"mean": np.mean, "median": np.median}[center](mean, axis=0)
    features = encode(thresholds=center)
    np.testing.assert_allclose(features.calibration.thresholds, thresholds, atol=1e-5)
    assert_signs(features, mean > thresholds, np.abs(mean - thresholds))
    if center == "median":
        assert np.abs(signs(features).mean(axis=0) - 0.5).max() < 0.02


def test_every_option_that_changes_codes_changes_the_spec(encode: Any) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"thresholds": "mean"},
        {"thresholds": "median"},
        {"order": Order.SIGN_THEN_VOTE},
        {"quantization": Quantization.UINT8},
        {"quantization": Quantization.FLOAT16},
        {"layer_pooling": LayerPooling.LEARNED, "layer_weights": WEIGHTS},
    ]
    assert len({encode(**option).spec.id for option in options}) == len(options)


def test_uint8_codes_are_the_mean_within_half_a_step(hidden_states: Any, encode: Any) -> None:
    mean = np.mean(hidden_states(None), axis=0)
    features = encode(quantization=Quantization.UINT8)
    scale = features.calibration.scale
    zero_point = features.calibration.zero_point
    assert np.array_equal(zero_point, np.clip(np.rint(zero_point), 0, 255))
    reach = np.maximum(mean.max(axis=0), 0) - np.minimum(mean.min(axis=0), 0)
    np.testing.assert_allclose(scale, reach / 255, rtol=1e-4)
    # The zero point is rounded, so the ends of the range may be half a step further out.
    assert (np.abs(features.unpack() - mean) <= 1.01 * scale + BACKEND_ERROR).all()
    inside = (features.codes > 0) & (features.codes < 255)
    assert inside.mean() > 0.9
    error = np.abs(features.unpack() - mean)
    assert (error <= 0.51 * scale + BACKEND_ERROR)[inside].all()


def test_a_feature_that_is_always_zero_has_a_usable_scale() -> None:
    layer = np.zeros((10, 3), np.float32)
    layer[:, 1] = np.linspace(-1, 3, 10)
    layer[:, 2] = 5
    config = BuildConfig(quantization=Quantization.UINT8)
    calibration = calibrate(config, 3, [layer])
    assert calibration is not None
    assert calibration.scale is not None
    assert calibration.zero_point is not None
    assert (calibration.scale > 0).all()
    assert np.isfinite(1 / calibration.scale).all()
    assert calibration.zero_point.tolist() == [0, 64, 0]


def test_float16_codes_are_the_mean(hidden_states: Any, encode: Any) -> None:
    mean = np.mean(hidden_states(None), axis=0)
    features = encode(quantization=Quantization.FLOAT16)
    np.testing.assert_allclose(features.unpack(), mean, atol=BACKEND_ERROR)


def test_learned_pooling_is_the_weighted_sum(hidden_states: Any, encode: Any) -> None:
    first, second = hidden_states(None)
    pooled = WEIGHTS[0] * first + WEIGHTS[1] * second
    options = {"layer_pooling": LayerPooling.LEARNED, "layer_weights": WEIGHTS}
    features = encode(**options)
    assert features.spec.layer_weights == WEIGHTS
    assert_signs(features, pooled > 0, np.abs(pooled))
    as_floats = encode(**options, quantization=Quantization.FLOAT16)
    np.testing.assert_allclose(as_floats.unpack(), pooled, atol=BACKEND_ERROR)


@pytest.mark.parametrize("thresholds", ["zero", "median"])
def test_votes_are_those_of_the_reference(hidden_states: Any, encode: Any, thresholds: str) -> None:
    layers = hidden_states(None)
    features = encode(order=Order.SIGN_THEN_VOTE, thresholds=thresholds)
    limits = None if features.calibration is None else features.calibration.thresholds
    expected = reference.sign_codes(layers, "sign_then_vote", thresholds=limits)
    expected_bits = np.unpackbits(expected, axis=1).astype(bool)
    offset = 0 if limits is None else limits
    margins = [np.abs(layer - offset) for layer in (*layers, np.mean(layers, axis=0))]
    assert_signs(features, expected_bits, np.min(margins, axis=0))


def test_another_bundles_thresholds_give_the_same_spec(
    build_bundle: Callable[..., Path],
    tiny_encoder: Callable[[str], Path],
    traced_once: None,
    tmp_path: Path,
) -> None:
    """The second has the same codes, whatever texts it is compared on."""
    other_texts = tmp_path / "texts.txt"
    other_texts.write_text("Quite another text.\nAnd one more of them.\n" * 20, encoding="utf-8")
    config = BuildConfig(
        encoder=str(tiny_encoder("bert")),
        calibration=other_texts,
        min_sign_agreement=0.98,  # so few signs that one of them weighs much
    )
    for options in ({"thresholds": "median"}, {"quantization": Quantization.UINT8}):
        first = build_bundle("bert", **options)
        second = tmp_path / next(iter(options))
        settings = {**options, "thresholds": str(first / CALIBRATION), "output": second}
        manifest = make_bundle(replace(config, **settings))
        assert manifest.spec.id == read_manifest(first).spec.id
        assert set(manifest.artifacts) == {CALIBRATION, "tokenizer.json", "encoder.onnx"}
        texts = ["The tide was out.", "Where is it?"]
        codes = [Engine.load(f, backend="onnxruntime").encode(texts).codes for f in (first, second)]
        assert np.array_equal(*codes)


def test_calibration_files_that_do_not_fit(
    build_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    layers = [np.ones((4, 64), np.float32)]
    thresholds = str(build_bundle("bert", thresholds="median") / CALIBRATION)
    scales = str(build_bundle("bert", quantization=Quantization.UINT8) / CALIBRATION)

    def attempt(path: str, dim: int = 64, quantization: str = "sign") -> None:
        config = BuildConfig(thresholds=path, quantization=Quantization(quantization))
        calibrate(config, dim, layers)

    attempt(thresholds)
    attempt(scales, quantization="uint8")
    with pytest.raises(ExportError, match=r"holds \['scale', 'zero_point'\], expected thresholds"):
        attempt(scales)
    with pytest.raises(ExportError, match=r"holds \['thresholds'\], expected scale"):
        attempt(thresholds, quantization="uint8")
    with pytest.raises(ExportError, match=r"expected zero, mean, median, or the"):
        attempt("modus")
    with pytest.raises(BundleError, match=r"expected finite float32 \[128\]"):
        attempt(thresholds, dim=128)
    spoiled = tmp_path / "spoiled.safetensors"
    spoiled.write_bytes(b"x")
    with pytest.raises(BundleError, match="cannot be read"):
        attempt(str(spoiled))
    arrays = load_file(thresholds)
    save_file({"thresholds": arrays["thresholds"] * np.float32(np.nan)}, spoiled)
    with pytest.raises(BundleError, match="finite"):
        attempt(str(spoiled))
    save_file({"unknown": arrays["thresholds"]}, spoiled)
    with pytest.raises(BundleError, match="cannot be read"):
        attempt(str(spoiled))


def test_layers_are_summed_in_ascending_order_in_float32() -> None:
    layers = [np.full((1, 1), value, np.float32) for value in (1e8, 1, -1e8)]
    assert pool_layers(layers, None).item() == 0  # 1e8 + 1 is 1e8 in float32
    assert pool_layers(layers[::-1], (1.0, 1.0, 1.0)).item() == 0
    assert pool_layers([layers[0], layers[2], layers[1]], (1.0, 1.0, 1.0)).item() == 1
    before = layers[0].copy()
    pool_layers(layers, None)
    assert np.array_equal(layers[0], before)
