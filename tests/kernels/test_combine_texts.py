"""Pairs of texts' vectors: the kernel's codes are those of the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from head_cases import aligned, read_only, unaligned
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernel_cases import GuardedMemory
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.heads.two_texts_reference import combine_texts

SIZES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 384, 1024)
Vectors = NDArray[np.float32]


def run(vectors: Vectors, pairs: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Checks that nothing beside the codes was written."""
    dim = 4 * vectors.shape[1] + 2
    memory = np.full(len(pairs) * dim + 128, 0xA5, np.uint8)
    codes = memory[64:-64].reshape(-1, dim)
    before = vectors.copy()
    _kernels.combine_texts(vectors, pairs, codes)
    assert (memory[:64] == 0xA5).all()
    assert (memory[-64:] == 0xA5).all()
    assert np.array_equal(vectors.view(np.uint32), before.view(np.uint32))
    return codes.copy()


def all_pairs(texts: int) -> NDArray[np.int64]:
    return np.ascontiguousarray(np.argwhere(np.ones((texts, texts), bool)))


def odd_vectors(size: int, seed: int = 0) -> Vectors:
    """Of every magnitude that there is, equal, opposite, of zeros, of one number, of none."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(24, size)).astype(np.float32)
    vectors *= np.exp2(rng.integers(-149, 127, (24, 1))).astype(np.float32)
    vectors[0] = 0
    vectors[1] = vectors[2]
    vectors[3] = -vectors[2]
    vectors[4] = 0
    vectors[4, -1] = 1e-45
    vectors[5] = 0
    vectors[5, 0] = -3
    vectors[6] = np.finfo(np.float32).max
    vectors[7] = np.nan
    vectors[8] = -np.inf
    vectors[9, 0] = np.inf
    vectors[10, 0] = np.nan
    vectors[11] = rng.choice([-1, 1], size)
    return vectors


def test_golden_bytes() -> None:
    """Worked out by hand: a change here changes the answers of every head of two texts."""
    vectors = np.array([[3, 3, 3, 3], [0.5, 0, 0, 0]], np.float32)
    # At a root mean square of 1: (1, 1, 1, 1) and (2, 0, 0, 0); of a cosine of 1/2
    # (1/2 + 1) 32767.5 is 49151.25, so BFFF; of 1 65535, FFFF.
    ones, two, zero = "A0 A0 A0 A0", "C0 80 80 80", "00 00 00 00"
    ahead = f"{ones} {two} 20 20 20 20 90 80 80 80 BF FF"
    back = f"{two} {ones} 20 20 20 20 90 80 80 80 BF FF"
    itself = f"{two} {two} {zero} A0 80 80 80 FF FF"
    codes = run(vectors, np.array([[0, 1], [1, 0], [1, 1]]))
    assert [row.tobytes().hex(" ").upper() for row in codes] == [ahead, back, itself]
    # One number of 36 has a size of 6: (6) 32 + 128 and (-6) 32 + 128 are out of range, so are
    # 12 * 32 and -36 * 8 + 128; the cosine is -1.
    spikes = np.zeros((2, 36), np.float32)
    spikes[:, 0] = [7, -1e-3]
    (codes,) = run(spikes, np.array([[0, 1]]))
    assert codes[[0, 36, 72, 108, 144, 145]].tolist() == [255, 0, 255, 0, 0, 0]
    assert codes[[1, 37, 73, 109]].tolist() == [128, 128, 0, 128]


@pytest.mark.parametrize("size", SIZES)
def test_codes_are_those_of_the_reference(size: int) -> None:
    vectors = odd_vectors(size)
    pairs = all_pairs(len(vectors))
    np.testing.assert_array_equal(run(vectors, pairs), combine_texts(vectors, pairs))


def test_the_largest_vectors() -> None:
    vectors = odd_vectors(_kernels.MAX_VECTOR_SIZE)
    pairs = all_pairs(len(vectors))[::5].copy()
    np.testing.assert_array_equal(run(vectors, pairs), combine_texts(vectors, pairs))


@settings(max_examples=300)
@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=st.floats(width=32)
    )
)
def test_codes_of_any_numbers(vectors: Vectors) -> None:
    pairs = all_pairs(len(vectors))
    np.testing.assert_array_equal(run(vectors, pairs), combine_texts(vectors, pairs))


def test_a_pairs_codes_depend_on_nothing_else() -> None:
    vectors = odd_vectors(33)
    pairs = np.random.default_rng(0).integers(0, len(vectors), (200, 2))
    together = run(vectors, pairs)
    for i, (a, b) in enumerate(pairs):
        alone = run(vectors[[a, b]], np.array([[0, 1]]))
        assert np.array_equal(alone[0], together[i])


def test_what_the_codes_stand_for() -> None:
    """By the definition, in float64, of vectors as texts have them."""
    size = 384
    vectors = np.random.default_rng(0).normal(0.2, 1, (6, size)).astype(np.float32) * 7
    pairs = all_pairs(6)
    codes = run(vectors, pairs).astype(np.float64)
    exact = vectors.astype(np.float64)
    unit = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True))
    u, w = (unit[rows] for rows in pairs.T)
    step = 0.5 / 32 + 2e-3
    for part, expected in ((0, u), (1, w)):
        got = (codes[:, part * size : (part + 1) * size] - 128) / 32
        np.testing.assert_allclose(got, np.clip(expected, -4, 127 / 32), atol=step)
    np.testing.assert_allclose(codes[:, 2 * size : 3 * size] / 32, abs(u - w), atol=step)
    product = (codes[:, 3 * size : 4 * size] - 128) / 8
    np.testing.assert_allclose(product, np.clip(u * w, -16, 127 / 8), atol=0.5 / 8 + 2e-2)
    cosine = (256 * codes[:, -2] + codes[:, -1]) / 32767.5 - 1
    np.testing.assert_allclose(cosine, (u * w).mean(axis=1), atol=1e-4)


def test_a_text_and_itself_are_as_near_as_can_be() -> None:
    vectors = odd_vectors(17)
    texts = np.arange(len(vectors))
    codes = run(vectors, np.stack([texts, texts], axis=1))
    some = np.abs(np.nan_to_num(vectors)).max(axis=1) > 2.0**-101  # what is less counts as 0
    assert 0 < some.sum() < len(some)
    assert (codes[some, -2:] == 255).all()
    assert (codes[~some, -2:] == [128, 0]).all()
    assert (codes[:, 2 * 17 : 3 * 17] == 0).all()


def test_no_byte_beyond_the_arrays_is_read_or_written() -> None:
    vectors, pairs = odd_vectors(17), np.array([[23, 23], [0, 23], [23, 1]])
    expected = combine_texts(vectors, pairs)
    last = GuardedMemory(vectors.nbytes).at_end(vectors)
    codes = GuardedMemory(expected.nbytes).at_end(np.zeros_like(expected))
    _kernels.combine_texts(last, pairs, codes)
    np.testing.assert_array_equal(codes, expected)


def test_no_pairs() -> None:
    assert run(odd_vectors(3), np.empty((0, 2), np.int64)).shape == (0, 14)
    assert run(np.empty((0, 3), np.float32), np.empty((0, 2), np.int64)).shape == (0, 14)


GOOD: dict[str, Any] = {
    "vectors": np.ones((3, 4), np.float32),
    "pairs": np.array([[0, 2], [1, 1]]),
    "codes": np.full((2, 18), 7, np.uint8),
}
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "negative": (
        {"pairs": np.array([[0, 2], [-1, 1]])},
        ValueError,
        r"pairs\[1\]: got -1, expected rows of vectors, 0 to 2",
    ),
    "past the last": (
        {"pairs": np.array([[0, 3], [1, 1]])},
        ValueError,
        r"pairs\[0\]: got 3, expected rows of vectors, 0 to 2",
    ),
    "triples": ({"pairs": np.zeros((2, 3), np.int64)}, ValueError, r"pairs: got shape \[2, 3\]"),
    "flat": ({"pairs": np.zeros(2, np.int64)}, ValueError, r"pairs: got shape \[2\]"),
    "int32": ({"pairs": np.zeros((2, 2), np.int32)}, TypeError, "pairs: got format 'i'"),
    "turned": (
        {"pairs": np.zeros((2, 2), np.int64, order="F")[::-1]},
        ValueError,
        "pairs: got a strided array",
    ),
    "float64": ({"vectors": np.ones((3, 4))}, TypeError, "vectors: got format 'd', expected a fl"),
    "one vector": ({"vectors": np.ones(4, np.float32)}, ValueError, r"vectors: got shape \[4\]"),
    "no numbers": (
        {"vectors": np.ones((3, 0), np.float32), "codes": np.zeros((2, 2), np.uint8)},
        ValueError,
        r"vectors: got shape \[3, 0\], expected 1 to 16383 numbers a text",
    ),
    "16,384 numbers": (
        {"vectors": np.ones((3, 16_384), np.float32)},
        ValueError,
        r"vectors: got shape \[3, 16384\], expected 1 to 16383 numbers a text",
    ),
    "unaligned": ({"vectors": unaligned(np.ones((3, 4), np.float32))}, ValueError, "an unaligned"),
    "narrow codes": (
        {"codes": np.full((2, 17), 7, np.uint8)},
        ValueError,
        r"codes: got shape \[2, 17\], expected \[pairs, 4 \* size \+ 2\] = \[2, 18\]",
    ),
    "more codes": ({"codes": np.full((3, 18), 7, np.uint8)}, ValueError, "codes: got shape"),
    "signed codes": ({"codes": np.full((2, 18), 7, np.int8)}, TypeError, "codes: got format 'b'"),
    "read-only": (
        {"codes": read_only(np.full((2, 18), 7, np.uint8))},
        ValueError,
        "codes: got a read-only array",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments_are_refused(name: str) -> None:
    change, error, message = BAD[name]
    arguments = {**GOOD, **change}
    before = arguments["codes"].copy()
    with pytest.raises(error, match=message):
        _kernels.combine_texts(**arguments)
    assert np.array_equal(arguments["codes"], before)


def test_codes_over_the_vectors_are_refused() -> None:
    memory = aligned(3 * 4 * 4)
    memory[:] = 0
    with pytest.raises(ValueError, match="codes: got memory of vectors, expected an array of its"):
        _kernels.combine_texts(
            memory.view(np.float32).reshape(3, 4),
            GOOD["pairs"],
            memory[:36].reshape(2, 18),
        )
