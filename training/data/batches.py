"""Which examples go through an encoder or a head together while it is trained."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

BUCKET_BATCHES = 32
"""Batches within which shuffled texts are sorted by length, so that little is padded."""

Rows = NDArray[np.int64]


def shuffled_batches(
    lengths: NDArray[np.int64], batch_size: int, random: np.random.Generator
) -> list[Rows]:
    """The batches of one epoch, in random order: int64 [rows] each, every row once.

    Args:
        lengths: int64 [texts], in any unit.
    """
    order = random.permutation(len(lengths))
    bucket = batch_size * BUCKET_BATCHES
    batches = []
    for start in range(0, len(order), bucket):
        rows = order[start : start + bucket]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def seed_of(seed: int, name: str, number: int = 0) -> int:
    """A seed for one purpose, such as the epoch `number` of the task `name`; 64 bits.

    Tasks get theirs by name, so that leaving one out changes nothing for the others.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode()), number])
    return int(sequence.generate_state(1, np.uint64)[0])


class EndlessBatches:
    """The batches of one task, epoch after epoch.

    Which rows batch number k has is a function of the seed, the name and k: a run that is resumed
    needs to remember nothing but how far it was.
    """

    def __init__(self, name: str, lengths: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self._name = name
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch, self._batches = -1, [np.empty(0, np.int64)]

    def __getitem__(self, number: int) -> Rows:
        """int64 [rows] of batch `number`, counted from 0 without end."""
        epoch, index = divmod(number, -(-len(self._lengths) // self._batch_size))
        if epoch != self._epoch:
            random = np.random.default_rng(seed_of(self._seed, self._name, epoch))
            self._batches = shuffled_batches(self._lengths, self._batch_size, random)
            self._epoch = epoch
        return self._batches[index]
