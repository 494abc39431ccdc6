"""Which ids there are, in 16 bytes per id; and 8 for what is kept of each one's text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Keys = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""Halves of each id's hash, uint64 [ids] each."""

Run = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64] | None]
"""Keys, and their values, uint64 [ids]; None: all are 0."""


class IdIndex:
    """A set of ids that keeps 128 bits of each one's hash: a Python set takes ten times that.

    Two ids among a billion share their hash with a chance of one in 10^21.
    """

    def __init__(self) -> None:
        # Sorted by the first half; each is at least twice as long as the next.
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return sum(run[0].size for run in self._runs)

    def add(self, ids: Iterable[str], values: NDArray[np.uint64] | None = None) -> None:
        """Ids that are not there yet, and a value for each, uint64 [ids]; None: 0."""
        keys = _keys(ids)
        if not keys[0].size:
            return
        if values is not None and not values.any():
            values = None
        self._runs.append(_sorted((*keys, values)))
        while len(self._runs) > 1 and 2 * self._runs[-1][0].size > self._runs[-2][0].size:
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted(_joined(before, last)))

    def contains(self, ids: Iterable[str]) -> NDArray[np.bool_]:
        """Whether each id is there, bool [ids]."""
        return self.look_up(ids)[0]

    def look_up(self, ids: Iterable[str]) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
        """Whether each id is there, bool [ids], and its value, uint64 [ids]."""
        keys = _keys(ids)
        found, values = np.zeros(keys[0].size, bool), np.zeros(keys[0].size, np.uint64)
        for run in self._runs:
            at = _places(run, keys)
            there = at >= 0
            found |= there
            if run[2] is not None:
                values[there] = run[2][at[there]]
        return found, values


def _keys(ids: Iterable[str]) -> Keys:
    digests = [hashlib.blake2b(i.encode(), digest_size=16).digest() for i in ids]
    pairs = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _joined(first: Run, second: Run) -> Run:
    values = None
    if first[2] is not None or second[2] is not None:
        both = [
            np.zeros(run[0].size, np.uint64) if run[2] is None else run[2]
            for run in (first, second)
        ]
        values = np.concatenate(both)
    return (
        np.concatenate([first[0], second[0]]),
        np.concatenate([first[1], second[1]]),
        values,
    )


def _sorted(run: Run) -> Run:
    order = np.argsort(run[0])
    values = run[2]
    return run[0][order], run[1][order], None if values is None else values[order]


def _places(run: Run, keys: Keys) -> NDArray[np.int64]:
    """Where in the run each key is, int64 [keys]; -1 where it is not."""
    found = np.full(keys[0].size, -1, np.int64)
    at = np.searchsorted(run[0], keys[0])
    sought = np.arange(keys[0].size)
    while sought.size:  # once, unless first halves agree
        sought = sought[at[sought] < run[0].size]
        sought = sought[run[0][at[sought]] == keys[0][sought]]
        is_it = run[1][at[sought]] == keys[1][sought]
        found[sought[is_it]] = at[sought[is_it]]
        sought = sought[~is_it]
        at[sought] += 1
    return found
