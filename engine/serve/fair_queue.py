"""Texts that wait for the encoder, in an order in which nobody starves another.

host/src/fair_queue.h has the same rule for one client; tests/host compares them.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import cut_batches

LOOK_AHEAD = 16
"""Budgets' worth of tokens among which texts of like length are looked for."""

CONTENDED_SHARE = 4
"""Number by which the budget is divided while one client has much to do and others are there, too:
they wait for the batch that runs. A quarter takes 9% more time per token on all-MiniLM-L6-v2."""

REMEMBERED_TOKENS = 1 << 14
"""Tokens of the queue's clock for which a client is remembered of which nothing waits: who has just
asked will ask again."""

Owner = TypeVar("Owner")


@dataclass(frozen=True, eq=False)
class Row(Generic[Owner]):
    """A text that waits: the `index`-th of a request, its tokens, and those with padding."""

    owner: Owner
    index: int
    length: int
    padded: int


@dataclass(eq=False)
class _Client(Generic[Owner]):
    """What waits of a client.

    Attributes:
        heap: (tag, count, row), least tag first.
        start: when its next text is due, on the queue's clock.
        number: orders clients whose texts are due at the same time, and who have as many.
        taken_tokens: its own clock, for tags.
        waiting_tokens: of the rows.
    """

    heap: list[tuple[int, int, Row[Owner]]] = field(default_factory=list)
    start: float = 0.0
    number: int = 0
    taken_tokens: int = 0
    waiting_tokens: int = 0


_Entry = tuple[int, int, Row[Owner]]


class FairQueue(Generic[Owner]):
    """Clients have equal shares; of one client it is first come, first served. Not thread-safe.

    Between clients it is start-time fair queueing: a client's next text is due when its last ones
    would have ended had every client had its share. One that comes anew is due at once, however
    much others have waiting.

    Of a client's requests, each text has a tag: the tokens that had been taken of the client when
    the request came, plus the tokens of the request before it. The least tag is next. So a request
    of one text waits for what was there when it came, but of a request with 1,000 texts only for as
    much as was due by then; and the long one is never passed for good: what comes later has a later
    tag.
    """

    def __init__(self) -> None:
        self._clients: dict[Hashable, _Client[Owner]] = {}
        self._clock = 0.0  # tokens that a client with its share would have had
        self._count = 0  # of texts ever, so that equal tags keep their order
        self._waiting = 0
        self._removed: set[Row[Owner]] = set()  # still in a heap, though never first

    def __len__(self) -> int:
        return self._waiting

    def put(
        self,
        owner: Owner,
        lengths: Sequence[int],
        padded: Sequence[int],
        client: Hashable = None,
        indexes: Sequence[int] | None = None,
    ) -> list[Row[Owner]]:
        """Texts of a request of a client, by their tokens, without padding and with it.

        Args:
            indexes: which of its texts they are; None: all.
        """
        indexes = range(len(lengths)) if indexes is None else indexes
        its = self._clients.setdefault(client, _Client())
        if not its.heap:
            its.start, its.number = max(its.start, self._clock), self._count
        tag = its.taken_tokens
        rows = [Row(owner, *each) for each in zip(indexes, lengths, padded, strict=True)]
        for row in rows:
            self._count += 1
            heapq.heappush(its.heap, (tag, self._count, row))
            its.waiting_tokens += row.length
            tag += row.length
        self._waiting += len(rows)
        return rows

    def remove(self, row: Row[Owner], client: Hashable = None) -> None:
        """Forgets a text that waits, though it is not its turn."""
        its = self._clients[client]
        self._removed.add(row)
        its.waiting_tokens -= row.length
        self._waiting -= 1
        self._skip_removed(its)

    def _skip_removed(self, its: _Client[Owner]) -> None:
        while its.heap and its.heap[0][2] in self._removed:
            self._removed.discard(heapq.heappop(its.heap)[2])

    def take(self, max_batch_tokens: int, call_tokens: int) -> list[Row[Owner]]:
        """The next batch: the text whose turn it is, and those that go with it at least cost.

        Args: see engine.batching.cut_batches.

        Returns at least one text; the queue must not be empty.
        """
        num_clients = sum(bool(its.heap) for its in self._clients.values())
        if self._is_contended(max_batch_tokens):
            max_batch_tokens = max(1, max_batch_tokens // CONTENDED_SHARE)
        found = self._next(LOOK_AHEAD * max_batch_tokens)
        lengths = np.array([entry[2].padded for _, entry in found], np.int64)
        if self._waiting > len(found):
            chosen = _fullest_with_first(lengths, max_batch_tokens, call_tokens)
        else:  # all that waits will be encoded soon: in the batches that cost least in total
            batches = cut_batches(lengths, max_batch_tokens, call_tokens)
            chosen = next({*batch.tolist()} for batch in batches if 0 in batch)
        for i, (its, entry) in enumerate(found):
            if i not in chosen:
                heapq.heappush(its.heap, entry)
                its.start -= entry[2].length
        taken = [found[i] for i in sorted(chosen)]
        for its, entry in taken:
            its.taken_tokens += entry[2].length
            its.waiting_tokens -= entry[2].length
        self._waiting -= len(taken)
        self._clock += sum(entry[2].length for _, entry in taken) / num_clients
        self._forget_idle()
        return [entry[2] for _, entry in taken]

    def _next(self, tokens: int) -> list[tuple[_Client[Owner], _Entry[Owner]]]:
        """Takes the texts that are due next, of so many tokens or a little more."""
        due = [
            (its.start, its.waiting_tokens, its.number, its)
            for its in self._clients.values()
            if its.heap
        ]
        heapq.heapify(due)
        found: list[tuple[_Client[Owner], _Entry[Owner]]] = []
        while due and tokens > 0:
            *_, its = heapq.heappop(due)
            entry = heapq.heappop(its.heap)
            self._skip_removed(its)
            found.append((its, entry))
            its.start += entry[2].length
            tokens -= entry[2].length
            if its.heap:
                heapq.heappush(due, (its.start, its.waiting_tokens, its.number, its))
        return found

    def _is_contended(self, max_batch_tokens: int) -> bool:
        """Whether one client has much to do, and others are there or were a moment ago."""
        if len(self._clients) < 2:
            return False
        most = max(its.waiting_tokens for its in self._clients.values())
        return most > CONTENDED_SHARE * max_batch_tokens

    def _forget_idle(self) -> None:
        """Clients of which nothing waits, once others have had as much as they."""
        idle = [
            name
            for name, its in self._clients.items()
            if not its.heap and its.start + REMEMBERED_TOKENS <= self._clock
        ]
        for name in idle:
            del self._clients[name]
        if self._waiting == 0:
            self._clients.clear()

    def drop(self, owner: Owner) -> list[Row[Owner]]:
        """Forgets a request's texts that wait; returns them."""
        dropped: list[Row[Owner]] = []
        for its in self._clients.values():
            own = [entry[2] for entry in its.heap if entry[2].owner is owner]
            if not own:
                continue
            its.heap = [entry for entry in its.heap if entry[2].owner is not owner]
            heapq.heapify(its.heap)
            waited = [row for row in own if row not in self._removed]
            self._removed.difference_update(own)
            self._skip_removed(its)
            its.waiting_tokens -= sum(row.length for row in waited)
            self._waiting -= len(waited)
            dropped += waited
        return dropped


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
