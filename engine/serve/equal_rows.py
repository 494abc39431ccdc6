"""Texts that are equal and wait at the same time: one of them is encoded, for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic

from bitheads.engine.serve.codes_cache import Key
from bitheads.engine.serve.fair_queue import Owner, Row


class EqualRows(Generic[Owner]):
    """Rows that wait and those that are being encoded, by key. Not thread-safe.

    Each waits for its own turn: whose comes first is encoded, and all others go with it. So nobody
    waits longer for having the same text as somebody with a long queue.
    """

    def __init__(self, key: Callable[[Row[Owner]], Key]) -> None:
        self._key = key
        self._waiting: dict[Key, dict[Row[Owner], None]] = {}
        self._running: dict[Key, list[Row[Owner]]] = {}

    def is_running(self, key: Key) -> bool:
        """Whether a text with this key is being encoded."""
        return key in self._running

    def ride(self, row: Row[Owner]) -> None:
        """A row goes with an equal one that is being encoded."""
        self._running[self._key(row)].append(row)

    def wait(self, row: Row[Owner]) -> None:
        """A row waits for its turn; none that is equal is being encoded."""
        self._waiting.setdefault(self._key(row), {})[row] = None

    def forget(self, row: Row[Owner]) -> None:
        """A row waits no longer."""
        rows = self._waiting[self._key(row)]
        del rows[row]
        if not rows:
            del self._waiting[self._key(row)]

    def start(self, taken: Sequence[Row[Owner]]) -> tuple[list[Row[Owner]], list[Row[Owner]]]:
        """It is the turn of some rows that waited.

        Returns those that are to be encoded, one of each key, and others that go with them though
        it was not their turn.
        """
        to_encode, early = [], []
        due = set(taken)
        for row in taken:
            key = self._key(row)
            if key in self._running:  # goes with one before it
                continue
            rows = self._waiting.pop(key)
            del rows[row]
            to_encode.append(row)
            self._running[key] = [*rows]
            early += [other for other in rows if other not in due]
        return to_encode, early

    def end(self, encoded: Sequence[Row[Owner]]) -> list[list[Row[Owner]]]:
        """Rows are encoded, or will not be: of each, those that went with it."""
        return [self._running.pop(self._key(row), []) for row in encoded]
