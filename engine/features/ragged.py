"""Ragged arrays: rows that belong to items, one item's after the other's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64 = NDArray[np.int64]


def offsets_of(counts: ArrayLike) -> Int64:
    """Where each item's rows begin, and where the last one's end, int64 [items + 1].

    Args:
        counts: rows of each item, integers [items].
    """
    each = np.asarray(counts, np.int64)
    offsets = np.zeros(each.size + 1, np.int64)
    np.cumsum(each, out=offsets[1:])
    return offsets


def ranges(starts: NDArray[Any], counts: NDArray[Any]) -> tuple[Int64, Int64]:
    """The rows from each start on, as many as its count, int64 [rows], and the offsets of those."""
    offsets = offsets_of(counts)
    return np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1]), offsets
