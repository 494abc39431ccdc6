"""The simple thing is scikit-learn's, on vectors that NumPy makes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bitheads import Engine
from bitheads.training.many_heads.linear import STRENGTHS, Part, linear_answers, vectors

RANDOM = np.random.default_rng(0)


def test_vectors_of_texts_and_of_pairs(tiny_engine: Engine) -> None:
    texts = ["One word.", "Two more words, then.", "A third."]

    def mean(text: str) -> np.ndarray:
        values = tiny_engine.encode([text]).unpack().mean(axis=0)
        return values / np.linalg.norm(values)

    found = vectors(texts, tiny_engine.encode)
    assert np.allclose(found, [mean(text) for text in texts], atol=1e-6)
    a, b = mean(texts[0]), mean(texts[1])
    (pair,) = vectors([(texts[0], texts[1])], tiny_engine.encode)
    assert np.allclose(pair, [*a, *b, *abs(a - b), *(a * b), a @ b], atol=1e-6)


@pytest.mark.parametrize("has_dev", [True, False])
def test_one_label(has_dev: bool) -> None:
    """The answers are those of one of scikit-learn's models, and as good as they get."""
    centres = RANDOM.normal(size=(3, 8))
    truth = RANDOM.integers(0, 3, 300)
    rows = (centres[truth] + RANDOM.normal(size=(300, 8))).astype(np.float32)
    train, dev = Part(rows[:150], truth[:150]), Part(rows[150:200], truth[150:200])
    answers, chosen = linear_answers(
        "single_label", ("a", "b", "c"), train, dev if has_dev else None, rows[200:]
    )
    strength = chosen["inverse_regularization"]
    assert strength in STRENGTHS
    model = LogisticRegression(C=strength, max_iter=500).fit(train.rows, train.truth)
    assert np.array_equal(answers, model.predict(rows[200:]))
    assert (answers == truth[200:]).mean() > 0.7


@pytest.mark.parametrize("kind", ["ordinal", "regression"])
def test_values(kind: str) -> None:
    rows = RANDOM.normal(size=(200, 5)).astype(np.float32)
    truth = rows @ np.arange(5) + RANDOM.normal(size=200)
    if kind == "ordinal":
        truth = np.digitize(truth, [-4, 0, 4])
    answers, _ = linear_answers(kind, (), Part(rows[:100], truth[:100]), None, rows[100:])
    assert np.corrcoef(answers, truth[100:])[0, 1] > 0.9


@pytest.mark.parametrize("has_dev", [True, False])
def test_several_labels_one_of_them_never_learnt(has_dev: bool) -> None:
    rows = RANDOM.normal(size=(240, 4)).astype(np.float32)
    truth = np.column_stack([rows[:, 0] > 0.5, rows[:, 1] > 0, rows[:, 2] > 9])
    train, dev = Part(rows[:120], truth[:120]), Part(rows[120:160], truth[120:160])
    answers, _ = linear_answers(
        "multi_label", ("a", "b", "c"), train, dev if has_dev else None, rows[160:]
    )
    assert answers.shape == (80, 3)
    assert (answers == truth[160:]).mean() > 0.9


def test_labels_that_a_fold_has_not() -> None:
    rows = RANDOM.normal(size=(12, 4)).astype(np.float32)
    truth = np.array([0] * 6 + [1] * 5 + [2])
    answers, _ = linear_answers("single_label", ("a", "b", "c"), Part(rows, truth), None, rows)
    assert set(answers.tolist()) <= {0, 1, 2}
