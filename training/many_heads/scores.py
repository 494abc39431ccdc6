"""How good answers are, in one number per kind, and how sure that number is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from bitheads.engine.kinds import KINDS
from bitheads.engine.predictions import Prediction
from bitheads.training.data.labelled_texts import LabelledTexts

Answers = NDArray[Any]
"""Of one label int64 [texts], its index; of several bool [texts, labels]; of a value, and of labels
with an order, float32 [texts]; of spans int64 [spans, 4]: text, start, end, label."""

SCORE_NAMES = {
    "single_label": "accuracy",
    "multi_label": "micro F1",
    "ordinal": "rank correlation",
    "regression": "rank correlation",
    "token_label": "F1 of spans",
}
"""By the kind: each is 1 at best."""

RESAMPLES = 1000
"""Of a bootstrap."""
RESAMPLES_OF_RANKS = 300
"""Fewer, as each one sorts."""
LEVEL = 0.95
"""Of intervals."""


class Interval(NamedTuple):
    """In which a number lies, at LEVEL."""

    low: float
    high: float


def answers_of(prediction: Prediction) -> Answers:
    """What a head answers."""
    kind = KINDS[prediction.kind]
    if kind.is_of_words:
        found, bounds = prediction.found_spans
        words = prediction.words
        assert words is not None, "it is of words"
        texts = np.repeat(np.arange(prediction.num_texts), np.diff(bounds))
        starts, ends = words.table[found.first, 2], words.table[found.last, 3]
        return np.column_stack([texts, starts, ends, found.label]).astype(np.int64)
    if kind.has_value:
        values = prediction.values
        assert values is not None, "its kind has values"
        return values
    return prediction.best if kind.is_one_label else prediction.has_label


def truth_of(data: LabelledTexts, labels: tuple[str, ...]) -> Answers:
    """What would be right. Raises InputError, with the line, for labels that are not `labels`."""
    if data.kind == "token_label":
        return data.spans(labels)
    if data.kind == "multi_label":
        return data.label_sets(labels)
    if data.kind == "regression":
        return data.scores()
    return data.label_ids(labels)


def score(kind: str, answers: Answers, truth: Answers) -> float:
    """See SCORE_NAMES; of spans 1 where there are none and none was found."""
    if KINDS[kind].has_value:
        return _rank_correlation(answers, truth)
    num_texts = len(truth)
    if KINDS[kind].is_of_words:
        num_texts = int(max(answers[:, 0].max(initial=0), truth[:, 0].max(initial=0))) + 1
    hits, of = _terms(kind, answers, truth, num_texts).sum(axis=0).tolist()
    return float(hits / of) if of else 1.0


def interval(kind: str, answers: Answers, truth: Answers, num_texts: int) -> Interval:
    """That of `score`: Wilson's of an accuracy, by resampling texts for all others."""
    if kind == "single_label":
        return _wilson(float((answers == truth).mean()), num_texts)
    return _quantiles(_resampled(kind, answers, truth, num_texts))


def difference(
    kind: str, answers: Answers, others: Answers, truth: Answers, num_texts: int
) -> Interval:
    """The interval of how much better `answers` are than `others`, on the same texts."""
    first, second = (_resampled(kind, found, truth, num_texts) for found in (answers, others))
    return _quantiles(first - second)


def _terms(kind: str, answers: Answers, truth: Answers, num_texts: int) -> NDArray[np.float64]:
    """Of each text the numerator and the denominator, whose sums' quotient is the score."""
    if kind == "single_label":
        return np.column_stack([answers == truth, np.ones(num_texts)]).astype(np.float64)
    if kind == "multi_label":
        hits = 2 * (answers & truth).sum(axis=1)
        return np.column_stack([hits, answers.sum(axis=1) + truth.sum(axis=1)]).astype(np.float64)
    right = set(map(tuple, answers.tolist())) & set(map(tuple, truth.tolist()))
    hits = np.bincount([text for text, *_ in right], minlength=num_texts)
    both = np.concatenate([answers[:, 0], truth[:, 0]])
    return np.column_stack([2 * hits, np.bincount(both, minlength=num_texts)]).astype(np.float64)


def _resampled(kind: str, answers: Answers, truth: Answers, num_texts: int) -> NDArray[np.float64]:
    """The score on texts drawn with replacement, float64 [resamples]: the same for the same number
    of texts, so that those of two answers are of the same texts."""
    random = np.random.default_rng(0)
    if KINDS[kind].has_value:
        drawn = random.integers(0, num_texts, (RESAMPLES_OF_RANKS, num_texts))
        return np.array([_rank_correlation(answers[rows], truth[rows]) for rows in drawn])
    terms = _terms(kind, answers, truth, num_texts)
    evenly = np.full(num_texts, 1 / num_texts)
    sums = np.array([random.multinomial(num_texts, evenly) @ terms for _ in range(RESAMPLES)])
    shares: NDArray[np.float64] = np.divide(
        sums[:, 0], sums[:, 1], out=np.ones(len(sums)), where=sums[:, 1] > 0
    )
    return shares


def _rank_correlation(values: Answers, truth: Answers) -> float:
    """Spearman's; 0 where either is constant."""
    first, second = rankdata(values), rankdata(truth)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _quantiles(found: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _wilson(share: float, count: int) -> Interval:
    z = float(norm.ppf((1 + LEVEL) / 2))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return Interval(float(middle - half), float(middle + half))
