"""How good predictions are, of every kind, and how well they know it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score


def confusion(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """How often each class was predicted for each: int64 [classes, classes], rows are the truth."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def f1_by_class(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of each class, 0 where it neither occurs nor is predicted; float64 [classes]."""
    hits = np.diag(counts)
    found = counts.sum(axis=0) + counts.sum(axis=1)
    f1: NDArray[np.float64] = np.divide(2 * hits, found, out=np.zeros(len(hits)), where=found > 0)
    return f1


def summarize(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> dict[str, float]:
    """accuracy, macro_f1 and matthews (Gorodkin's form for more than two classes)."""
    counts = confusion(truth, predicted, classes)
    total, hits = counts.sum(), np.trace(counts)
    true_counts = counts.sum(axis=1).astype(float)
    predicted_counts = counts.sum(axis=0).astype(float)
    spread = (total**2 - (predicted_counts**2).sum()) * (total**2 - (true_counts**2).sum())
    covariance = hits * total - true_counts @ predicted_counts
    return {
        "accuracy": float(hits / total),
        "macro_f1": float(f1_by_class(counts).mean()),
        "matthews": float(covariance / math.sqrt(spread)) if spread > 0 else 0.0,
    }


def expected_calibration_error(
    probabilities: NDArray[np.float32],
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64] | None = None,
    bins: int = 15,
) -> float:
    """How far the answers' probabilities are from how often they are right (Guo et al. 2017); 0 if
    there are none.

    Args:
        probabilities: float32 [texts, classes].
        predicted: the answers; None for the likeliest.
        bins: of equal width.
    """
    answers = probabilities.argmax(axis=1) if predicted is None else predicted
    sure = probabilities[np.arange(len(truth)), answers].astype(np.float64)
    right = answers == truth
    bin_of = np.minimum((sure * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, sure - right, bins)
    return float(np.abs(gaps).sum() / max(1, len(truth)))


def brier(probabilities: NDArray[np.float32], truth: NDArray[np.float64]) -> float:
    """Mean squared distance of probabilities [texts, classes] to the truth, 0 or 1; 0 to 2."""
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def average_precision(scores: NDArray[np.float32], is_hit: NDArray[np.bool_]) -> float:
    """Area under precision by recall; 0 where there are no hits."""
    if not is_hit.any():
        return 0.0
    return float(average_precision_score(is_hit, scores))


def auroc(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> float:
    """How often a score from outside is above one from inside; a tie is half."""
    truth = np.repeat([0, 1], [len(inside), len(outside)])
    return float(roc_auc_score(truth, np.concatenate([inside, outside])))


def f1_of_labels(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F1 of each label of bool [texts, labels]; 0 where it neither occurs nor is found."""
    hits, either = (truth & found).sum(axis=0), truth.sum(axis=0) + found.sum(axis=0)
    f1: NDArray[np.float64] = np.divide(2 * hits, either, out=np.zeros(len(hits)), where=either > 0)
    return f1


def micro_f1(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """F1 of all labels of all texts together, bool [texts, labels]."""
    return float(2 * (truth & found).sum() / max(1, truth.sum() + found.sum()))


Spans = NDArray[np.int64]
"""int64 [spans, 4]: text, start, end, label."""


def span_f1(truth: Spans, found: Spans) -> float:
    """F1 of spans that are the same in all columns, and different among each other; 1 where there
    are none and none was found."""
    hits = len(set(map(tuple, truth.tolist())) & set(map(tuple, found.tolist())))
    return 2 * hits / (len(truth) + len(found)) if len(truth) + len(found) else 1.0


def span_metrics(truth: Spans, found: Spans, labels: Sequence[str]) -> dict[str, float]:
    """How good spans are. Except for `span_f1_any_label`, a span counts if start, end and label are
    right.

    `span_macro_f1` is the mean over the labels that occur, of which each has its `span_f1/LABEL`.
    """
    f1 = span_f1(truth, found)
    hits = f1 * (len(truth) + len(found)) / 2
    of_labels = {
        label: span_f1(truth[truth[:, 3] == i], found[found[:, 3] == i])
        for i, label in enumerate(labels)
        if (truth[:, 3] == i).any()
    }
    return {
        "span_f1": f1,
        "span_precision": hits / max(1, len(found)),
        "span_recall": hits / max(1, len(truth)),
        "span_macro_f1": float(np.mean([*of_labels.values()])) if of_labels else f1,
        "span_f1_any_label": span_f1(truth[:, :3], found[:, :3]),
        **{f"span_f1/{label}": value for label, value in of_labels.items()},
    }


def spearman(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Rank correlation; 0 where either is constant."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def pearson(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation; 0 where either is constant."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1])
