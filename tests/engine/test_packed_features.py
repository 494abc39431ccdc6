"""PackedFeatures: texts are taken, joined and unpacked without touching each other."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bitheads import (
    Calibration,
    FeatureSpec,
    InputError,
    LayerPooling,
    Order,
    PackedFeatures,
    Quantization,
    SpecMismatchError,
    Stats,
)

LENGTHS = [3, 1, 4, 1, 5]
SPEC = FeatureSpec(
    encoder="tiny",
    weights_sha256="0" * 64,
    layers=(2, 3),
    layer_pooling=LayerPooling.MEAN,
    quantization=Quantization.SIGN,
    order=Order.POOL_THEN_SIGN,
    dim=20,
)


def make(lengths: list[int] = LENGTHS, spec: FeatureSpec = SPEC, seed: int = 0) -> PackedFeatures:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (sum(lengths), spec.code_bytes), dtype=np.uint8)
    return PackedFeatures(codes, np.cumsum([0, *lengths]), spec)


def codes_of(features: PackedFeatures) -> list[list[list[int]]]:
    bounds = pairwise(features.offsets.tolist())
    return [features.codes[start:stop].tolist() for start, stop in bounds]


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(1, 3),
        slice(3, 1),
        slice(-2, None),
        slice(0, 0),
        slice(5, 5),
        slice(2, 99),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(4, 0, -3),
        [3, 0, 0],
        [-1],
        [],
        np.array([4, 2]),
        np.array([], np.int64),
        np.array([True, False, True, False, False]),
        [True, False, True, False, True],
        [False] * 5,
    ],
    ids=str,
)
def test_indexing_takes_whole_texts(index: Any) -> None:
    features = make()
    plain = np.empty(len(LENGTHS), object)
    plain[:] = codes_of(features)
    chosen = features[index]
    assert codes_of(chosen) == plain[index].tolist()
    assert chosen.offsets[0] == 0
    assert chosen.spec is features.spec
    assert chosen.stats == Stats()


@pytest.mark.parametrize("index", [0, 4, -1, -5, np.int64(2)])
def test_an_integer_takes_one_text(index: int) -> None:
    features = make()
    chosen = features[index]
    assert len(chosen) == 1
    assert codes_of(chosen) == [codes_of(features)[index]]


def test_a_tuple_is_a_sequence_of_texts() -> None:
    features = make()
    assert codes_of(features[(1,)]) == codes_of(features[[1]])
    assert codes_of(features[2, 0, 2]) == codes_of(features[[2, 0, 2]])


@pytest.mark.parametrize("index", [5, -6, [0, 5], [True, False]])
def test_texts_that_are_not_there_are_an_index_error(index: Any) -> None:
    with pytest.raises(IndexError):
        make()[index]


def test_a_slice_shares_memory_and_a_selection_does_not() -> None:
    features = make()
    assert np.shares_memory(features[1:4].codes, features.codes)
    assert not np.shares_memory(features[[1, 2]].codes, features.codes)


def test_iteration_goes_text_by_text() -> None:
    features = make()
    assert [part.codes.shape[0] for part in features] == LENGTHS
    assert [codes_of(part)[0] for part in features] == codes_of(features)


def test_sizes() -> None:
    features = make()
    assert len(features) == 5
    assert features.num_tokens.tolist() == LENGTHS
    assert features.nbytes == sum(LENGTHS) * 3


def test_texts_of_no_tokens_are_kept() -> None:
    features = make([0, 2, 0])
    assert features[[2, 1, 0]].num_tokens.tolist() == [0, 2, 0]
    assert features[0].codes.shape == (0, 3)


def test_concat_keeps_the_order_and_adds_the_stats() -> None:
    a = replace(make([2, 3], seed=1), stats=Stats(num_texts=2, encode_s=1.5))
    b = replace(make([1], seed=2), stats=Stats(num_texts=1, encode_s=0.5))
    joined = PackedFeatures.concat([a, make([], seed=3), b])
    assert codes_of(joined) == codes_of(a) + codes_of(b)
    assert joined.stats == Stats(num_texts=3, encode_s=2.0)
    assert codes_of(PackedFeatures.concat([a])) == codes_of(a)


def test_splitting_and_joining_give_back_the_same() -> None:
    features = make()
    assert codes_of(PackedFeatures.concat(list(features))) == codes_of(features)


def test_concat_of_other_specs_names_both() -> None:
    other = replace(SPEC, weights_sha256="1" * 64)
    with pytest.raises(SpecMismatchError, match=rf"{other.id}.*{SPEC.id}"):
        PackedFeatures.concat([make(), make(spec=other)])


def test_concat_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one"):
        PackedFeatures.concat([])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((4, 2), np.uint8), r"uint8 \[4, 2\], expected uint8 \[tokens, 3\]"),
        (np.zeros((4, 3), np.int8), "int8"),
        (np.zeros(12, np.uint8), r"\[12\]"),
    ],
)
def test_codes_of_another_shape_or_type_are_an_error(codes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackedFeatures(codes, np.array([0, 4]), SPEC)


@pytest.mark.parametrize(
    "offsets",
    [
        np.array([0, 3]),
        np.array([1, 4]),
        np.array([0, 3, 2, 4]),
        np.array([0, 5, 4]),
        np.array([0, -1, 4]),
        np.array([], np.int64),
        np.array([[0, 4]]),
        np.array([0, 4], np.int32),
        np.array([0.0, 4.0]),
    ],
    ids=str,
)
def test_offsets_that_do_not_fit_are_an_error(offsets: Any) -> None:
    with pytest.raises(InputError, match="offsets"):
        PackedFeatures(np.zeros((4, 3), np.uint8), offsets, SPEC)


def test_signs_unpack_to_plus_and_minus_one() -> None:
    features = make()
    unpacked = features.unpack()
    bits = np.unpackbits(features.codes, axis=1)[:, : SPEC.dim]
    assert unpacked.dtype == np.float32
    assert np.array_equal(unpacked, 2.0 * bits - 1)


def test_float16_unpacks_to_itself() -> None:
    spec = replace(SPEC, quantization=Quantization.FLOAT16)
    values = np.random.default_rng(0).normal(size=(4, spec.dim)).astype("<f2")
    features = PackedFeatures(values.view(np.uint8), np.array([0, 4]), spec)
    assert np.array_equal(features.unpack(), values.astype(np.float32))
    assert np.array_equal(features[0:1].unpack(), values.astype(np.float32))


def test_uint8_unpacks_by_its_calibration() -> None:
    spec = replace(SPEC, quantization=Quantization.UINT8)
    scale = np.linspace(0.1, 2, spec.dim, dtype=np.float32)
    zero_point = np.arange(spec.dim, dtype=np.float32)
    calibration = Calibration(scale=scale, zero_point=zero_point)
    features = replace(make(spec=spec), calibration=calibration)
    expected = scale * (features.codes.astype(np.float64) - zero_point)
    assert np.allclose(features.unpack(), expected, rtol=1e-6, atol=1e-5)
    # Texts that are taken or joined keep the calibration.
    assert np.array_equal(features[[1]].unpack(), features.unpack()[3:4])
    assert np.array_equal(PackedFeatures.concat([features]).unpack(), features.unpack())


def test_uint8_without_calibration_cannot_be_read() -> None:
    features = make(spec=replace(SPEC, quantization=Quantization.UINT8))
    with pytest.raises(SpecMismatchError, match=r"Pass calibration=engine\.calibration"):
        features.unpack()
