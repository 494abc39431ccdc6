"""Batches, in NumPy: what the kernel's must be, of lengths whose costs a float64 holds exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def round_lengths(lengths: NDArray[np.int64], max_length: int) -> NDArray[np.int64]:
    """What `bh_round_lengths` writes, of int64 [texts]."""
    steps = np.select([lengths <= 64, lengths <= 128, lengths <= 256], [2, 4, 8], 16)
    return np.asarray(np.minimum(-(-lengths // steps) * steps, np.maximum(lengths, max_length)))


def cut_batches(
    lengths: NDArray[np.int64], max_batch_tokens: int, call_tokens: int
) -> list[NDArray[np.int64]]:
    """What `bh_cut_batches` writes: the texts of each batch."""
    order = np.argsort(-lengths, kind="stable")
    sizes = _best_sizes(np.maximum(1, lengths[order]), max_batch_tokens, call_tokens)
    batches = []
    start = 0
    while start < order.size:
        batches.append(order[start : start + sizes[start]])
        start += sizes[start]
    return batches


def _best_sizes(
    lengths: NDArray[np.int64], max_batch_tokens: int, call_tokens: int
) -> NDArray[np.int64]:
    """How many texts the batch that starts at each text has, int64 [texts].

    By dynamic programming from the last text on. A batch that starts amid texts of one length and
    has room for more may as well take the text before it: that one costs no more here than with
    the longer texts before. So only batches that start a run of equal lengths have a choice; all
    others are full, or need no looking at. That is one step per text and, for each length there is,
    one per possible row.

    Args:
        lengths: int64 [texts], falling, at least 1.
    """
    num_texts = lengths.size
    # The cost of all texts from this one on; batches past the last text are none.
    cost = np.full(2 * num_texts + 1, np.inf)
    cost[num_texts] = 0
    sizes = np.empty(num_texts, np.int64)
    stop = num_texts
    for start in np.flatnonzero(np.diff(lengths, prepend=0))[::-1]:
        length = int(lengths[start])
        rows = min(max(1, max_batch_tokens // length), num_texts)
        sizes[start:stop] = rows
        for last in range(stop, start + 1, -rows):
            first = max(start + 1, last - rows)
            full = cost[first + rows : last + rows]
            cost[first:last] = call_tokens + rows * length + full
        choices = cost[start + 1 : start + rows + 1] + length * np.arange(1, rows + 1)
        # Of equal choices the largest: fewer calls.
        sizes[start] = rows - np.argmin(choices[::-1])
        cost[start] = call_tokens + choices[sizes[start] - 1]
        stop = start
    return sizes
