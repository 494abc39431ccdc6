"""Which ids there are, in 16 bytes per id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Keys = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""Halves of each id's hash, uint64 [ids] each."""


class IdIndex:
    """A set of ids that keeps 128 bits of each one's hash: a Python set takes ten times that.

    Two ids among a billion share their hash with a chance of one in 10^21.
    """

    def __init__(self) -> None:
        # Sorted by the first half; each is at least twice as long as the next.
        self._runs: list[Keys] = []

    def __len__(self) -> int:
        return sum(run[0].size for run in self._runs)

    def add(self, ids: Iterable[str]) -> None:
        """Ids that are not there yet."""
        keys = _keys(ids)
        if not keys[0].size:
            return
        self._runs.append(_sorted(keys))
        while len(self._runs) > 1 and 2 * self._runs[-1][0].size > self._runs[-2][0].size:
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(
                _sorted(
                    (np.concatenate([before[0], last[0]]), np.concatenate([before[1], last[1]]))
                )
            )

    def contains(self, ids: Iterable[str]) -> NDArray[np.bool_]:
        """Whether each id is there, bool [ids]."""
        keys = _keys(ids)
        found = np.zeros(keys[0].size, bool)
        for run in self._runs:
            found |= _are_in(run, keys)
        return found


def _keys(ids: Iterable[str]) -> Keys:
    digests = [hashlib.blake2b(i.encode(), digest_size=16).digest() for i in ids]
    pairs = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _sorted(keys: Keys) -> Keys:
    order = np.argsort(keys[0])
    return keys[0][order], keys[1][order]


def _are_in(run: Keys, keys: Keys) -> NDArray[np.bool_]:
    found = np.zeros(keys[0].size, bool)
    at = np.searchsorted(run[0], keys[0])
    sought = np.arange(keys[0].size)
    while sought.size:  # once, unless first halves agree
        sought = sought[at[sought] < run[0].size]
        sought = sought[run[0][at[sought]] == keys[0][sought]]
        found[sought] = run[1][at[sought]] == keys[1][sought]
        sought = sought[~found[sought]]
        at[sought] += 1
    return found
