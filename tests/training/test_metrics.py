"""Metrics of predictions, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bitheads.training.metrics import summarize


def test_metrics_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    predicted = np.array([0, 0, 0, 1, 0, 0, 1, 1, 1, 1])
    # tp 4, tn 3, fp 1, fn 2 for class 1
    metrics = summarize(truth, predicted, 2)
    assert metrics["accuracy"] == pytest.approx(0.7)
    assert metrics["macro_f1"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    assert metrics["matthews"] == pytest.approx((4 * 3 - 1 * 2) / np.sqrt(5 * 6 * 4 * 5))


def test_metrics_of_a_constant_prediction() -> None:
    metrics = summarize(np.array([0, 1, 2]), np.array([0, 0, 0]), 3)
    assert metrics == pytest.approx({"accuracy": 1 / 3, "macro_f1": 1 / 6, "matthews": 0.0})
