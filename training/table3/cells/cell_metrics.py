"""How good a cell's predictions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitheads.training.metrics import confusion, f1_by_class, summarize


def cell_metrics(
    truth: NDArray[np.int64], logits: NDArray[np.float32], classes: Sequence[str]
) -> dict[str, float]:
    """accuracy, macro_f1, matthews, and of each class of two or three its F1 as `f1/<class>`."""
    predicted = logits.argmax(axis=1)
    metrics = summarize(truth, predicted, len(classes))
    if len(classes) <= 3:
        by_class = f1_by_class(confusion(truth, predicted, len(classes)))
        metrics |= {f"f1/{name}": float(f1) for name, f1 in zip(classes, by_class, strict=True)}
    return metrics
