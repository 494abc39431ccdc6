"""Cutting batches: every text once, longest first, within the budget, at the least cost."""

from __future__ import annotations

from functools import cache

import batching_reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitheads import InputError
from bitheads.engine.batching import cut_batches, pad_batch, round_lengths
from bitheads.engine.cpu_encoder import CPU_BATCH_TOKENS, CPU_CALL_TOKENS
from bitheads.engine.texts.tokenize import Tokens


def cost(batches: list[list[int]], call_tokens: int) -> int:
    """Of batches of lengths, longest first."""
    return sum(call_tokens + len(batch) * max(1, batch[0]) for batch in batches)


def cut(lengths: list[int], budget: int, call_tokens: int) -> list[list[int]]:
    """The lengths of each batch's texts."""
    batches = cut_batches(np.array(lengths, np.int64), budget, call_tokens)
    return [[lengths[i] for i in batch] for batch in batches]


def fill(lengths: list[int], budget: int) -> list[list[int]]:
    """The obvious way: each batch as full as can be."""
    rest = sorted(lengths, reverse=True)
    batches = []
    while rest:
        rows = max(1, budget // max(1, rest[0]))
        batches.append(rest[:rows])
        rest = rest[rows:]
    return batches


def least_cost(lengths: list[int], budget: int, call_tokens: int) -> int:
    """By trying every size of every batch."""
    falling = sorted((max(1, length) for length in lengths), reverse=True)

    @cache
    def of(start: int) -> int:
        most = max(1, budget // falling[start]) if start < len(falling) else 0
        sizes = range(1, min(most, len(falling) - start) + 1)
        return min((call_tokens + n * falling[start] + of(start + n) for n in sizes), default=0)

    return of(0)


@given(st.lists(st.integers(0, 600)), st.integers(1, 2000), st.integers(0, 200))
def test_every_text_is_in_one_batch_within_the_budget(
    lengths: list[int], budget: int, call_tokens: int
) -> None:
    batches = cut_batches(np.array(lengths, np.int64), budget, call_tokens)
    taken = [int(i) for batch in batches for i in batch]
    assert sorted(taken) == list(range(len(lengths)))
    assert [lengths[i] for i in taken] == sorted(lengths, reverse=True)
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert batch.size == 1 or batch.size * longest <= budget


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 80), st.integers(0, 30))
def test_no_other_batches_cost_less(lengths: list[int], budget: int, call_tokens: int) -> None:
    """Few lengths, many texts: runs of equal lengths are where batches are not looked at."""
    batches = cut(lengths, budget, call_tokens)
    assert cost(batches, call_tokens) == least_cost(lengths, budget, call_tokens)


@given(st.lists(st.integers(1, 600), max_size=300), st.integers(1, 20_000), st.integers(0, 2000))
def test_filling_batches_costs_no_less(lengths: list[int], budget: int, call_tokens: int) -> None:
    batches = cut(lengths, budget, call_tokens)
    assert cost(batches, call_tokens) <= cost(fill(lengths, budget), call_tokens)


def test_little_is_padding() -> None:
    """Lengths as of real texts, most of them short, a few very long."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.5, 0.8, 1000), 3, 512).astype(np.int64).tolist()
    computed = cost(cut(lengths, CPU_BATCH_TOKENS, CPU_CALL_TOKENS), 0)
    assert computed <= 1.03 * sum(lengths)


def test_calls_that_cost_much_are_few() -> None:
    lengths = list(range(1, 101))
    assert len(cut(lengths, 10_000, 0)) == 100
    assert len(cut(lengths, 10_000, 1_000_000)) == 1


def test_equal_lengths_keep_their_order() -> None:
    (batch,) = cut_batches(np.array([4, 4, 4]), 100, 0)
    assert batch.tolist() == [0, 1, 2]


def test_many_texts_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice of size for each length there is, not for each text.

    Counted in the reference, whose steps the kernel takes.
    """
    choices = 0
    argmin = np.argmin

    def count(costs: np.ndarray) -> np.intp:
        nonlocal choices
        choices += costs.size
        return argmin(costs)

    monkeypatch.setattr("batching_reference.np.argmin", count)
    lengths = np.random.default_rng(1).integers(3, 513, 100_000)
    batches = batching_reference.cut_batches(lengths, CPU_BATCH_TOKENS, CPU_CALL_TOKENS)
    assert sum(map(len, batches)) == lengths.size
    assert choices <= sum(CPU_BATCH_TOKENS // length for length in range(3, 513))


def test_a_budget_below_one_is_an_error() -> None:
    with pytest.raises(InputError, match="got 0, expected at least 1"):
        cut_batches(np.array([1]), 0, 0)


def test_padding_is_on_the_right() -> None:
    tokens = [
        Tokens(np.array([5, 6, 7], np.int32), num_first=2, truncated=False),
        Tokens(np.array([8], np.int32), num_first=1, truncated=False),
    ]
    batch = pad_batch(tokens, pad_id=9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch.lengths.tolist() == [3, 1]
    arrays = (batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.lengths)
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}


def test_lengths_are_rounded_to_few() -> None:
    lengths = np.arange(1, 513)
    rounded = round_lengths(lengths, 512)
    assert (rounded >= lengths).all()
    assert (rounded - lengths < np.maximum(2, lengths / 16)).all()
    assert len(np.unique(rounded)) == 80
    assert (np.diff(rounded) >= 0).all()
    np.testing.assert_array_equal(round_lengths(rounded, 512), rounded)
    # Never past what the encoder reads; a text that already is stays.
    assert round_lengths(np.array([509, 510, 700]), 510).tolist() == [510, 510, 700]


def test_a_batch_is_padded_to_what_is_asked() -> None:
    tokens = [Tokens(np.array([1, 2, 3], np.int32), 3, False)]
    assert pad_batch(tokens, 0, 8).input_ids.tolist() == [[1, 2, 3, 0, 0, 0, 0, 0]]
    assert pad_batch(tokens, 0, 2).input_ids.shape == (1, 3)
