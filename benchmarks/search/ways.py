"""Ways to look for the nearest texts, from what is kept of each; and how much of it they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures.rounding import rounded
from benchmarks.search.corpus import Corpus

NEAREST = 10
CANDIDATES = 100
"""Rows that Hamming distance finds, to be looked at again."""

BLOCK_QUERIES = 64

Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Side:
    """Queries or texts, as `Corpus` has them.

    Attributes:
        floats: float32 [rows, dim], of length 1.
        signs: uint8 [rows, dim / 8].
        steps: the int8 embeddings as what they stand for but for an offset, float32 [rows, dim].
        majority: uint8 [rows, code_bytes].
    """

    floats: Scores
    signs: NDArray[np.uint8]
    steps: Scores
    majority: NDArray[np.uint8]

    @classmethod
    def of(cls, corpus: Corpus, rows: slice) -> Side:
        steps = corpus.steps[rows].astype(np.float32) * corpus.step
        return cls(corpus.vectors[rows], corpus.signs[rows], steps, corpus.majority[rows])


def ones(signs: NDArray[np.uint8]) -> Scores:
    """Signs as numbers, 1 and -1: float32 [rows, 8 * bytes]."""
    return np.unpackbits(signs, axis=1).astype(np.float32) * 2 - 1


def recalls(queries: Side, texts: Side) -> dict[str, float]:
    """Way -> the share of the 10 nearest by float vectors that are among the 10 that it finds."""
    text_ones, majority_ones = ones(texts.signs), ones(texts.majority)
    found: dict[str, list[float]] = {}
    for start in range(0, len(queries.floats), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        floats = queries.floats[block]
        exact = floats @ texts.floats.T
        steps = floats @ texts.steps.T
        asymmetric = floats @ text_ones.T
        # The dot product of signs is dim less twice their Hamming distance.
        hamming = ones(queries.signs[block]) @ text_ones.T
        majority = ones(queries.majority[block]) @ majority_ones.T
        near, near_majority = best(hamming, CANDIDATES), best(majority, CANDIDATES)
        ways: Mapping[str, NDArray[np.int64]] = {
            "int8": best(steps, NEAREST),
            "signs": near[:, :NEAREST],
            "signs, then the float query": again(near, asymmetric),
            "signs, then int8": again(near, steps),
            "signs, then float32": again(near, exact),
            "majority": near_majority[:, :NEAREST],
            "majority, then float32": again(near_majority, exact),
        }
        right = best(exact, NEAREST)
        for way, rows in ways.items():
            shares = [np.isin(a, b).mean() for a, b in zip(right, rows, strict=True)]
            found.setdefault(way, []).extend(map(float, shares))
    return {way: rounded(float(np.mean(shares))) for way, shares in found.items()}


def best(scores: Scores, count: int) -> NDArray[np.int64]:
    """The rows with the highest scores, best first, int64 [queries, count]; of equal ones the first
    rows."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def again(candidates: NDArray[np.int64], scores: Scores) -> NDArray[np.int64]:
    """The best of the candidates by other scores."""
    order = best(np.take_along_axis(scores, candidates, axis=1), NEAREST)
    return np.take_along_axis(candidates, order, axis=1)


def rescore(query: Scores, candidates: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What a search does with the rows it found: `signs, then the float query`, for one query.

    Args:
        query: float32 [dim].
        candidates: signs, uint8 [CANDIDATES, dim / 8].
    """
    return np.argsort(-(ones(candidates) @ query), kind="stable")[:NEAREST]
