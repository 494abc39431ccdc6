"""How good predictions are: accuracy, F1 and the Matthews correlation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


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
