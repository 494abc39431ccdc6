"""The simple thing: a linear model of scikit-learn on one vector per text, for each kind of head.

The vector is the mean of a text's features at length 1; of a pair, each text is encoded by itself,
and the model reads `a, b, |a - b|, a * b` of the two vectors and their cosine. How strongly a model
is regularized is chosen on dev, or, without it, by cross-validation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.features.words import Words
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import Text
from bitheads.training.heads.linear_model import pool
from bitheads.training.heads.objectives.multi_label import MultiLabelObjective
from bitheads.training.many_heads.scores import Answers, answers_of, score
from bitheads.training.metrics import average_precision

Float32 = NDArray[np.float32]
Get = Callable[[Sequence[Text]], PackedFeatures]
"""Codes of single texts and pairs, as `Engine.encode` gives them."""

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization; the best is kept."""

FOLDS = 5
"""Of cross-validation, where there is no dev."""

UNLIKELY = -30.0
"""Log probability of a class that a model has never seen."""


def vectors(texts: Sequence[Text], get: Get) -> Float32:
    """One row per text, float32 [texts, dim], or per pair, float32 [pairs, 4 dim + 1]."""
    if not any(isinstance(text, tuple) for text in texts):
        return means(get(texts))
    first, second = (means(get([text[i] for text in texts])) for i in (0, 1))
    cosine = (first * second).sum(axis=1, keepdims=True)
    return np.hstack([first, second, np.abs(first - second), first * second, cosine])


def means(features: PackedFeatures) -> Float32:
    """The mean of each text's features at length 1, float32 [texts, dim]."""
    found = pool(features, PositionPooling.MEAN)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


@dataclass(frozen=True, eq=False)
class Part:
    """Rows to learn from, or to choose by.

    Attributes:
        rows: float32 [rows, columns], of texts, or of words for `token_label`.
        truth: what would be right, see `scores.Answers`; of `token_label` the words' tags.
    """

    rows: Float32
    truth: NDArray[Any]


def linear_answers(
    kind: str,
    labels: tuple[str, ...],
    train: Part,
    dev: Part | None,
    rows: Float32,
    words: Words | None = None,
) -> tuple[Answers, dict[str, Any]]:
    """What a linear model answers for some rows, and what was chosen for it.

    Args:
        words: of the texts whose words `rows` are; of `token_label` alone.
    """
    width = 1 + 2 * len(labels) if kind == "token_label" else max(1, len(labels))
    held_truth = (train if dev is None else dev).truth
    best: tuple[float, float, Float32] | None = None
    with warnings.catch_warnings():
        # A model that has not quite converged, and a label that a fold has not, are as they are.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Label not .* is present in all training examples")
        for strength in STRENGTHS:
            if dev is None:
                held = _out_of_fold(kind, strength, train, width)
            else:
                model = _MODELS[kind](strength).fit(train.rows, train.truth)
                held = _outputs(model, dev.rows, width)
            worth = _worth(kind, labels, held, held_truth)
            if best is None or worth > best[0]:
                best = worth, strength, held
        assert best is not None, "there are strengths"
        _, strength, held = best
        model = _MODELS[kind](strength).fit(train.rows, train.truth)
    outputs = _outputs(model, rows, width)
    chosen = {"inverse_regularization": strength}
    if kind == "single_label":
        return outputs.argmax(axis=1), chosen
    if kind == "multi_label":
        has = held_truth.astype(np.float32)
        objective = MultiLabelObjective(labels)
        decided = objective.decide(held, has, objective.new_loss(has))
        scaled = outputs * np.float32(decided.scale)
        return answers_of(Prediction(labels, scaled, kind, decided.decision)), chosen
    if kind == "token_label":
        return answers_of(Prediction(labels, outputs, kind, words=words)), chosen
    return outputs[:, 0], chosen


def _logistic(strength: float) -> Any:
    return LogisticRegression(C=strength, max_iter=500)


def _logistic_each(strength: float) -> Any:
    return OneVsRestClassifier(LogisticRegression(C=strength, max_iter=500))


def _ridge(strength: float) -> Any:
    return Ridge(alpha=1 / strength)


_MODELS: Mapping[str, Callable[[float], Any]] = {
    "single_label": _logistic,
    "multi_label": _logistic_each,
    "ordinal": _ridge,
    "regression": _ridge,
    "token_label": _logistic,
}
"""Kind -> a new model of some inverse regularization."""


def _outputs(model: Any, rows: Float32, width: int) -> Float32:
    """float32 [rows, width]: log probabilities of classes, one logit per label, or a value."""
    if isinstance(model, Ridge):
        return np.asarray(model.predict(rows), np.float32)[:, None]
    if isinstance(model, LogisticRegression):
        outputs = np.full((len(rows), width), UNLIKELY, np.float32)
        outputs[:, model.classes_] = model.predict_log_proba(rows).clip(UNLIKELY)
        return outputs
    return np.asarray(model.decision_function(rows), np.float32).reshape(len(rows), width)


def _out_of_fold(kind: str, strength: float, train: Part, width: int) -> Float32:
    """The outputs for each row of a model that did not learn from it."""
    outputs = np.full((len(train.rows), width), UNLIKELY, np.float32)
    folds = KFold(min(FOLDS, len(train.rows)), shuffle=True, random_state=0)
    for own, others in folds.split(train.rows):
        truth = train.truth[own]
        if _MODELS[kind] is _logistic and len(np.unique(truth)) < 2:
            continue
        model = _MODELS[kind](strength).fit(train.rows[own], truth)
        outputs[others] = _outputs(model, train.rows[others], width)
    return outputs


def _worth(kind: str, labels: tuple[str, ...], outputs: Float32, truth: NDArray[Any]) -> float:
    """How good outputs are, to compare models."""
    if _MODELS[kind] is _logistic:
        # The likelihood, not the accuracy, of which many models have the same.
        return float(outputs[np.arange(len(truth)), truth].mean())
    if kind == "multi_label":
        return average_precision(outputs.ravel(), truth.ravel())
    return score(kind, outputs[:, 0], truth)
