"""Tags of words and probabilities of labels, in NumPy: the meaning the kernels are held to.

`kernels/SPEC.md` (Tag sequences) says the same in words; `engine/kinds/tag_sequences.py` is what
the engine calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.ragged import ranges

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

LEAST = -300.0
"""Least difference of a tag's logit to the word's largest, for probabilities: so that no sum
of exponentials is 0."""


def best_tags(logits: Float32, offsets: Int64) -> Int64:
    """See engine.kinds.tag_sequences."""
    tags: Int64 = logits.argmax(axis=1)
    before = np.append(0, tags[:-1])
    before[offsets[:-1][offsets[:-1] < len(tags)]] = 0  # a text's first word has none before it
    wrong = np.flatnonzero(_goes_on(tags) & (before != tags) & (before != tags - 1))
    if len(wrong):
        texts = np.unique(np.searchsorted(offsets, wrong, side="right") - 1)
        rows, own = ranges(offsets[:-1][texts], np.diff(offsets)[texts])
        tags[rows] = _best_paths(logits[rows].astype(np.float64), own)
    return tags


def label_probabilities(logits: Float32, offsets: Int64) -> Float32:
    """See engine.kinds.tag_sequences; within one unit in the last place of what the kernel says."""
    odds = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf
        odds -= odds.max(axis=1, keepdims=True, initial=float(np.float32(-3e38)))
    odds = np.exp(np.maximum(odds, LEAST, out=odds), out=odds)
    begins, goes_on = odds[:, 1::2], odds[:, 2::2]
    steps = _steps(offsets)
    # Of each word's tags, given the words before it; they sum to 1.
    outside, inside = np.empty((len(odds), 1)), np.empty(begins.shape)
    for i, at in enumerate(steps):
        following = inside[steps[i - 1][: len(at)]] if i else 0.0
        of_label = begins[at] + goes_on[at] * following
        whole = odds[at, :1] + of_label.sum(axis=1, keepdims=True)
        outside[at], inside[at] = odds[at, :1] / whole, of_label / whole
    # What follows, given that a word is outside, or of a label; the largest is 1.
    after_outside, after_inside = np.ones(outside.shape), np.ones(inside.shape)
    for i in range(len(steps) - 2, -1, -1):
        nexts = steps[i + 1]
        at, of_label = steps[i][: len(nexts)], after_inside[nexts]
        starts = odds[nexts, :1] * after_outside[nexts]
        starts += (begins[nexts] * of_label).sum(axis=1, keepdims=True)
        either = starts + goes_on[nexts] * of_label
        most = either.max(axis=1, keepdims=True)
        after_outside[at], after_inside[at] = starts / most, either / most
    outside *= after_outside
    inside *= after_inside
    inside /= outside + inside.sum(axis=1, keepdims=True)
    return inside.astype(np.float32)


def _goes_on(tags: Int64) -> NDArray[np.bool_]:
    goes_on: NDArray[np.bool_] = (tags > 0) & (tags % 2 == 0)
    return goes_on


def _steps(offsets: Int64) -> list[Int64]:
    """The first word of each text that has one, the second of each that has two, and so on; the
    longest text's comes first."""
    order = np.argsort(-np.diff(offsets), kind="stable")
    starts, lengths = offsets[:-1][order], np.diff(offsets)[order]
    longest = int(lengths[0]) if len(lengths) else 0
    counts = np.searchsorted(-lengths, -np.arange(longest), side="left")
    return [starts[:count] + i for i, count in enumerate(counts)]


def _best_paths(logits: Float64, offsets: Int64) -> Int64:
    """Of texts that all have words."""
    steps = _steps(offsets)
    came_from = np.zeros(len(logits), np.int64)  # the best tag before, if this one begins or is O
    went_on = np.zeros((len(logits), logits.shape[1] // 2), np.bool_)  # before, if this one does
    best = logits[steps[0]]  # of each text the sums up to its last word so far
    best[:, 2::2] = -np.inf
    for at in steps[1:]:
        sums = best[: len(at)]
        begins, goes_on = sums[:, 1::2], sums[:, 2::2]
        came_from[at] = sums.argmax(axis=1)
        went_on[at] = goes_on > begins
        before = np.repeat(sums.max(axis=1, keepdims=True), sums.shape[1], axis=1)
        before[:, 2::2] = np.maximum(begins, goes_on)
        with np.errstate(invalid="ignore"):  # inf - inf
            best[: len(at)] = before + logits[at]
    tags = np.empty(len(logits), np.int64)
    tag = best.argmax(axis=1)
    for at in reversed(steps):
        found = tag[: len(at)]
        tags[at] = found
        begun = found - 1 + went_on[at, np.maximum(found // 2 - 1, 0)]
        tag[: len(at)] = np.where(_goes_on(found), begun, came_from[at])
    return tags
