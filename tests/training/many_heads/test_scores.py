"""Scores and their intervals against scikit-learn, SciPy, and what a drawn population has."""

from __future__ import annotations

import numpy as np
import pytest
from marks import long
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import accuracy_score, f1_score

from bitheads.training.many_heads.scores import difference, interval, score

RANDOM = np.random.default_rng(3)


def test_accuracy_and_its_interval() -> None:
    truth, answers = RANDOM.integers(0, 4, (2, 300))
    assert score("single_label", answers, truth) == accuracy_score(truth, answers)
    hits = int((truth == answers).sum())
    expected = binomtest(hits, 300).proportion_ci(method="wilson")
    found = interval("single_label", answers, truth, 300)
    assert found == pytest.approx((expected.low, expected.high))


def test_f1_of_labels() -> None:
    truth, answers = RANDOM.random((2, 400, 6)) < 0.3
    assert score("multi_label", answers, truth) == pytest.approx(
        f1_score(truth, answers, average="micro")
    )
    low, high = interval("multi_label", answers, truth, 400)
    assert low < score("multi_label", answers, truth) < high
    nothing = np.zeros((5, 2), np.bool_)
    assert score("multi_label", nothing, nothing) == 1


def test_rank_correlation() -> None:
    truth = RANDOM.random(200)
    answers = truth + RANDOM.random(200)
    assert score("regression", answers, truth) == pytest.approx(spearmanr(answers, truth).statistic)
    assert score("ordinal", np.ones(200), truth) == 0


def test_f1_of_spans() -> None:
    truth = np.array([[0, 0, 3, 1], [0, 5, 9, 0], [2, 1, 4, 1]])
    answers = np.array([[0, 0, 3, 1], [0, 5, 8, 0], [2, 1, 4, 0], [3, 0, 1, 1]])
    assert score("token_label", answers, truth) == pytest.approx(2 / 7)
    none = np.empty((0, 4), np.int64)
    assert score("token_label", none, none) == 1
    assert score("token_label", none, truth) == 0
    assert interval("token_label", answers, truth, 4)[0] == 0


@pytest.mark.parametrize("kind", ["multi_label", "token_label", *long("regression")])
def test_intervals_have_the_truth_as_often_as_they_say(kind: str) -> None:
    """Of 100 samples of a population, about 95 intervals have its score."""

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        truth = RANDOM.random((count, 3)) < 0.4
        answers = truth ^ (RANDOM.random((count, 3)) < 0.25)
        if kind == "multi_label":
            return answers, truth
        if kind == "regression":
            values = RANDOM.normal(size=count)
            return values + RANDOM.normal(size=count), values
        return (
            np.array([(row, label, label + 1, 0) for row, label in np.argwhere(found)])
            for found in (answers, truth)
        )  # type: ignore[return-value]

    of_all = score(kind, *draw(60_000))
    within = 0
    for _ in range(100):
        low, high = interval(kind, *draw(120), 120)
        within += low <= of_all <= high
    assert within >= 86  # 95 less four standard deviations


def test_a_difference_is_of_the_same_texts() -> None:
    """Two models that err alike differ less than their own intervals say."""
    truth = RANDOM.integers(0, 2, 500)
    wrong = RANDOM.random(500) < 0.3
    worse = np.where(wrong | (np.arange(500) < 15), 1 - truth, truth)
    better = np.where(wrong, 1 - truth, truth)
    low, high = difference("single_label", better, worse, truth, 500)
    assert 0 < low < high
    of_better = interval("single_label", better, truth, 500)
    of_worse = interval("single_label", worse, truth, 500)
    assert of_better.low < of_worse.high  # which alone would say nothing
    assert difference("single_label", better, better, truth, 500) == (0, 0)
