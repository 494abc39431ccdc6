"""Cutting batches: every text once, longest first, within the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import InputError
from engine.batching import cut_batches, pad_batch
from engine.tokenize import Tokens


@given(st.lists(st.integers(0, 600)), st.integers(1, 2000))
def test_every_text_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = cut_batches(np.array(lengths, np.int64), budget)
    taken = [int(i) for batch in batches for i in batch]
    assert sorted(taken) == list(range(len(lengths)))
    assert [lengths[i] for i in taken] == sorted(lengths, reverse=True)
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert batch.size == 1 or batch.size * longest <= budget


def test_equal_lengths_keep_their_order() -> None:
    (batch,) = cut_batches(np.array([4, 4, 4]), 100)
    assert batch.tolist() == [0, 1, 2]


def test_a_budget_below_one_is_an_error() -> None:
    with pytest.raises(InputError, match="got 0, expected at least 1"):
        cut_batches(np.array([1]), 0)


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
