"""The feature spec: its id is stable across versions and differs where codes differ."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bitheads import (
    BundleError,
    Calibration,
    FeatureSpec,
    LayerPooling,
    Order,
    Prediction,
    Quantization,
)
from bitheads.engine.features import pack

SPEC = FeatureSpec(
    encoder="all-MiniLM-L6-v2",
    weights_sha256="39f1cca91e60cae0ababfa4fad766ab7d59f327ab4470ad68e1772c33383eed1",
    layers=(3, 4, 5, 6),
    layer_pooling=LayerPooling.MEAN,
    quantization=Quantization.SIGN,
    order=Order.POOL_THEN_SIGN,
    dim=384,
)

CHANGES: list[dict[str, Any]] = [
    {"encoder": "other"},
    {"weights_sha256": "0" * 64},
    {"layers": (4, 5, 6)},
    {"layer_pooling": LayerPooling.LEARNED, "layer_weights": (0.1, 0.2, 0.3, 0.4)},
    {"layer_pooling": LayerPooling.LEARNED, "layer_weights": (0.1, 0.2, 0.3, 0.5)},
    {"quantization": Quantization.FLOAT16},
    {"quantization": Quantization.UINT8, "calibration_sha256": "1" * 64},
    {"order": Order.SIGN_THEN_VOTE},
    {"dim": 392},
    {"calibration_sha256": "1" * 64},
    {"prefix": "query: "},
    {"prefix": "query:"},
    {"prefix": "\u00e9\n"},
]


def test_the_id_never_changes() -> None:
    """Heads and stores written by any version carry it: if this fails, they are all orphans."""
    assert SPEC.id == "150c3b7213ac8f0b"


def test_only_a_prefix_is_a_field_that_earlier_versions_refuse() -> None:
    assert "prefix" not in SPEC.to_json()
    assert replace(SPEC, prefix="query: ").to_json()["prefix"] == "query: "
    assert replace(SPEC, prefix="query: ").id == "7d2d12cdbf01baa7"
    assert FeatureSpec.from_json({**SPEC.to_json(), "prefix": ""}).id == SPEC.id


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_whatever_changes_codes_changes_the_id(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).id != SPEC.id


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_json_gives_the_spec_back(change: dict[str, Any]) -> None:
    spec = replace(SPEC, **change)
    back = FeatureSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    assert back.id == spec.id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantization", "int4"),
        ("order", None),
        ("layer_pooling", "max"),
        ("layers", "ab"),
        ("layers", None),
        ("layers", []),
        ("dim", "x"),
        ("dim", 0),
        ("layer_weights", 3),
        ("prefix", None),
        ("prefix", "\ud800"),
    ],
)
def test_a_value_out_of_range_is_an_error(field: str, value: object) -> None:
    with pytest.raises(BundleError, match="feature spec: cannot read"):
        FeatureSpec.from_json({**SPEC.to_json(), field: value})


@pytest.mark.parametrize("field", ["encoder", "weights_sha256", "layers", "dim"])
def test_a_missing_field_is_an_error(field: str) -> None:
    data = SPEC.to_json()
    del data[field]
    with pytest.raises(BundleError, match=field):
        FeatureSpec.from_json(data)


def test_a_field_of_a_newer_version_is_an_error_that_names_it() -> None:
    with pytest.raises(BundleError, match=r"unknown fields \['rotation'\].*upgrade"):
        FeatureSpec.from_json({**SPEC.to_json(), "rotation": 1})


def test_it_is_shown_with_what_people_compare() -> None:
    text = str(replace(SPEC, calibration_sha256="abcdef12" + "0" * 56, prefix="a:\n" + "b" * 99))
    assert f'prefix "a:\\n{"b" * 57}",' in text
    for part in ("all-MiniLM-L6-v2", "layers 3-6", "mean", "sign", "abcdef12", "39f1cca9", "384"):
        assert part in text


@pytest.mark.parametrize(
    ("quantization", "size"),
    [(Quantization.SIGN, 48), (Quantization.UINT8, 384), (Quantization.FLOAT16, 768)],
)
def test_code_bytes(quantization: Quantization, size: int) -> None:
    assert replace(SPEC, quantization=quantization).code_bytes == size


def test_calibration_hash_is_of_names_and_values() -> None:
    ones, twos = np.ones(8, np.float32), np.full(8, 2, np.float32)
    hashes = {
        Calibration(thresholds=ones).sha256,
        Calibration(thresholds=twos).sha256,
        Calibration(scale=ones, zero_point=twos).sha256,
        Calibration(scale=twos, zero_point=ones).sha256,
    }
    assert len(hashes) == 4
    assert Calibration(thresholds=ones).sha256 == Calibration(thresholds=ones.copy()).sha256


def test_probabilities_and_top() -> None:
    logits = np.array([[0, np.log(3)], [1000, -1000], [5, 5]], np.float32)
    prediction = Prediction(("no", "yes"), logits)
    expected = [[0.25, 0.75], [1, 0], [0.5, 0.5]]
    assert np.allclose(prediction.probabilities, expected, atol=1e-6)
    assert prediction.probabilities.dtype == np.float32
    assert prediction.top == ("yes", "no", "no")


def test_no_texts_have_no_top() -> None:
    prediction = Prediction(("no", "yes"), np.empty((0, 2), np.float32))
    assert prediction.top == ()
    assert prediction.probabilities.shape == (0, 2)


@pytest.mark.parametrize("quantization", Quantization)
@pytest.mark.parametrize("dim", [1, 7, 8, 9, 384, 1023, 1024, 1 << 24])
def test_bytes_of_a_code_are_those_of_the_kernels(quantization: Quantization, dim: int) -> None:
    spec = replace(SPEC, dim=dim, quantization=quantization)
    assert spec.code_bytes == pack.code_bytes(dim, quantization.value)


def test_codes_of_no_features_are_an_error() -> None:
    with pytest.raises(ValueError, match="dim: got 0, expected at least 1"):
        _ = replace(SPEC, dim=0).code_bytes
