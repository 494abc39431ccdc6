"""Batches of the kernel: those of the NumPy reference; hostile lengths are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import batching_reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitheads.engine import _kernels

INT64_MAX = 2**63 - 1
LONGEST = 2**31 - 1
FEW_LENGTHS = st.lists(st.integers(0, 12), max_size=60)
REAL_LENGTHS = st.lists(st.integers(0, 600), max_size=200)
ANY_LENGTHS = st.lists(st.integers(0, 2**20), max_size=40)


def cut(lengths: np.ndarray, budget: int, call_tokens: int) -> list[list[int]]:
    order = np.full(lengths.size, -1)
    offsets = np.full(lengths.size + 1, -1)
    num_batches = _kernels.cut_batches(lengths, budget, call_tokens, order, offsets)
    assert (offsets[num_batches + 1 :] == -1).all()
    return [order[first:last].tolist() for first, last in pairwise(offsets[: num_batches + 1])]


def reference(lengths: np.ndarray, budget: int, call_tokens: int) -> list[list[int]]:
    batches = batching_reference.cut_batches(lengths, budget, call_tokens)
    return [batch.tolist() for batch in batches]


@given(
    st.one_of(FEW_LENGTHS, REAL_LENGTHS, ANY_LENGTHS),
    st.one_of(st.integers(1, 100), st.integers(1, 20_000), st.just(INT64_MAX)),
    st.one_of(st.just(0), st.integers(0, 200), st.integers(0, 2**20)),
)
def test_batches_are_those_of_the_reference(
    lengths: list[int], budget: int, call_tokens: int
) -> None:
    array = np.array(lengths, np.int64)
    assert cut(array, budget, call_tokens) == reference(array, budget, call_tokens)


@pytest.mark.parametrize("texts", [0, 1, 2, 1000, 20_000])
@pytest.mark.parametrize("longest", [1, 16, 512, 8192])
@pytest.mark.parametrize("budget", [1, 16, 1024, 8192, 10**6])
@pytest.mark.parametrize("call_tokens", [0, 32, 256])
def test_many_random_texts(texts: int, longest: int, budget: int, call_tokens: int) -> None:
    lengths = np.random.default_rng(texts + longest).integers(0, longest + 1, texts)
    assert cut(lengths, budget, call_tokens) == reference(lengths, budget, call_tokens)


@pytest.mark.parametrize("call_tokens", [0, LONGEST])
@pytest.mark.parametrize("budget", [1, LONGEST, INT64_MAX])
def test_the_largest_numbers(budget: int, call_tokens: int) -> None:
    """Costs of 2^50, which a float64 holds exactly, too."""
    lengths = np.full(2**18, LONGEST)
    lengths[::3] -= 1
    lengths[::1000] = 0
    batches = cut(lengths, budget, call_tokens)
    assert batches == reference(lengths, budget, call_tokens)
    assert sum(map(len, batches)) == lengths.size


def test_no_budget_makes_it_slow() -> None:
    """A length for each text and room for all: trying every batch would take hours."""
    lengths = np.random.default_rng(0).permutation(2 * 10**6)
    assert sum(map(len, cut(lengths, INT64_MAX, 32))) == lengths.size


@given(st.lists(st.integers(0, LONGEST)), st.integers(-(2**63), INT64_MAX))
def test_rounded_lengths_are_those_of_the_reference(lengths: list[int], max_length: int) -> None:
    array = np.array(lengths, np.int64)
    rounded = np.empty_like(array)
    _kernels.round_lengths(array, max_length, rounded)
    np.testing.assert_array_equal(rounded, batching_reference.round_lengths(array, max_length))
    _kernels.round_lengths(array, max_length, array)
    np.testing.assert_array_equal(rounded, array)


def int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


GOOD: dict[str, Any] = {
    "lengths": int64(3, 5),
    "max_batch_tokens": 8,
    "call_tokens": 1,
    "order": int64(7, 7),
    "batch_offsets": int64(7, 7, 7),
}
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "negative": (
        {"lengths": int64(3, -1)},
        ValueError,
        r"lengths\[1\]: got -1, expected 0 to 214748",
    ),
    "too_long": (
        {"lengths": int64(2**31, 1)},
        ValueError,
        r"lengths\[0\]: got 2147483648, expected",
    ),
    "rank": ({"lengths": np.zeros((2, 1), np.int64)}, ValueError, r"lengths: got shape \[2, 1\]"),
    "dtype": ({"lengths": np.zeros(2, np.int32)}, TypeError, "lengths: got format 'i', expected a"),
    "strided": ({"lengths": int64(3, 0, 5)[::2]}, ValueError, "lengths: got a strided array"),
    "no_budget": (
        {"max_batch_tokens": 0},
        ValueError,
        "max_batch_tokens: got 0, expected at least 1",
    ),
    "negative_call": ({"call_tokens": -1}, ValueError, "call_tokens: got -1, expected 0 to"),
    "costly_call": ({"call_tokens": 2**31}, ValueError, "call_tokens: got 2147483648, expected 0"),
    "short_order": ({"order": int64(7)}, ValueError, r"order: got shape \[1\], expected \[texts\]"),
    "offsets": ({"batch_offsets": int64(7, 7)}, ValueError, r"batch_offsets: got shape \[2\]"),
    "read_only": ({"order": read_only(int64(7, 7))}, ValueError, "order: got a read-only array"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments_are_refused(name: str) -> None:
    change, error, message = BAD[name]
    arguments = {**GOOD, **change}
    with pytest.raises(error, match=message):
        _kernels.cut_batches(**arguments)
    assert (arguments["order"] == 7).all()
    assert (arguments["batch_offsets"] == 7).all()


@pytest.mark.parametrize("length", [-1, 2**31, INT64_MAX, -(2**63)])
def test_lengths_that_no_text_has_are_not_rounded(length: int) -> None:
    rounded = int64(7)
    with pytest.raises(ValueError, match=rf"lengths\[0\]: got {length}, expected 0 to 2147483647"):
        _kernels.round_lengths(int64(length), 512, rounded)
    assert rounded.tolist() == [7]
