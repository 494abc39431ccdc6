"""Texts that wait for the encoder, in an order in which no request starves another."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.batching import cut_batches

LOOK_AHEAD = 16
"""Budgets' worth of tokens among which texts of like length are looked for."""

Owner = TypeVar("Owner")


@dataclass(frozen=True, eq=False)
class Row(Generic[Owner]):
    """A text that waits: the `index`-th of a request, its tokens, and those with padding."""

    owner: Owner
    index: int
    length: int
    padded: int


class FairQueue(Generic[Owner]):
    """First come, first served; but of a long request, a part at a time. Not thread-safe.

    Each text has a tag: the tokens that had been taken when its request came, plus the tokens of
    the request before it. The least tag is next. So a request of one text waits for what was there
    when it came, but of a request with 1,000 texts only for as much as was due by then; and the
    long one is never passed for good: what comes later has a later tag.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Row[Owner]]] = []
        self._taken_tokens = 0
        self._count = 0  # of texts ever, so that equal tags keep their order

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, owner: Owner, lengths: Sequence[int], padded: Sequence[int]) -> None:
        """All texts of a request, by their tokens, without padding and with it."""
        tag = self._taken_tokens
        for index, (length, full) in enumerate(zip(lengths, padded, strict=True)):
            self._count += 1
            heapq.heappush(self._heap, (tag, self._count, Row(owner, index, length, full)))
            tag += length

    def take(self, max_batch_tokens: int, call_tokens: int) -> list[Row[Owner]]:
        """The next batch: the text whose turn it is, and those that go with it at least cost.

        Args: see engine.batching.cut_batches.

        Returns at least one text; the queue must not be empty.
        """
        found = [heapq.heappop(self._heap)]
        tokens = found[0][2].length
        while self._heap and tokens < LOOK_AHEAD * max_batch_tokens:
            found.append(heapq.heappop(self._heap))
            tokens += found[-1][2].length
        lengths = np.array([row.padded for _, _, row in found], np.int64)
        if self._heap:
            chosen = _fullest_with_first(lengths, max_batch_tokens, call_tokens)
        else:  # all that waits will be encoded soon: in the batches that cost least in total
            batches = cut_batches(lengths, max_batch_tokens, call_tokens)
            chosen = next({*batch.tolist()} for batch in batches if 0 in batch)
        for i, entry in enumerate(found):
            if i not in chosen:
                heapq.heappush(self._heap, entry)
        taken = [found[i][2] for i in sorted(chosen)]
        self._taken_tokens += sum(row.length for row in taken)
        return taken

    def drop(self, owner: Owner) -> int:
        """Forgets a request's texts; returns their tokens."""
        dropped = [entry[2].length for entry in self._heap if entry[2].owner is owner]
        if dropped:
            self._heap = [entry for entry in self._heap if entry[2].owner is not owner]
            heapq.heapify(self._heap)
        return sum(dropped)


def _fullest_with_first(
    lengths: NDArray[np.int64], max_batch_tokens: int, call_tokens: int
) -> set[int]:
    """The batch with the first text that has most tokens for what it costs.

    A batch is a run of texts by length, from one that is no shorter than the first text on, with as
    many as the budget has room for.

    Args:
        lengths: int64 [texts], at least 1 each.
    """
    order = np.argsort(-lengths, kind="stable")
    falling = lengths[order]
    starts = np.arange(int(np.flatnonzero(order == 0)[0]) + 1)
    longest = falling[starts]
    rows = np.minimum(np.maximum(1, max_batch_tokens // longest), lengths.size - starts)
    tokens = np.concatenate([[0], np.cumsum(falling)])
    worth = (tokens[starts + rows] - tokens[starts]) / (rows * longest + call_tokens)
    worth[starts + rows < starts.size] = 0  # ends before the first text
    start = int(worth.argmax())
    return {*order[start : start + rows[start]].tolist()}
