"""Which texts go through the encoder together: sorted by length, cut by a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.tokenize import Tokens
from engine.types import TokenBatch


def cut_batches(lengths: NDArray[np.int64], max_batch_tokens: int) -> list[NDArray[np.int64]]:
    """Indices of each batch's texts, longest texts first.

    Args:
        lengths: int64 [texts], tokens of each text.
        max_batch_tokens: bound on rows * longest of a batch, padding included. A text longer
            than this makes a batch of its own.

    Raises InputError for a budget below 1.
    """
    if max_batch_tokens < 1:
        raise InputError(f"max_batch_tokens: got {max_batch_tokens}, expected at least 1.")
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < order.size:
        longest = max(1, int(lengths[order[start]]))
        rows = max(1, max_batch_tokens // longest)
        batches.append(order[start : start + rows])
        start += rows
    return batches


def pad_batch(tokens: Sequence[Tokens], pad_id: int) -> TokenBatch:
    """One padded batch, padding on the right, as long as its longest text."""
    lengths = np.array([t.ids.size for t in tokens], np.int64)
    shape = (len(tokens), int(lengths.max(initial=0)))
    input_ids = np.full(shape, pad_id, np.int64)
    token_type_ids = np.zeros(shape, np.int64)
    for row, text in enumerate(tokens):
        input_ids[row, : text.ids.size] = text.ids
        token_type_ids[row, text.num_first : text.ids.size] = 1
    attention_mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    return TokenBatch(input_ids, attention_mask, token_type_ids, lengths)
