"""Linear models on the float sentence embedding, one per kind: what anybody would try first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from bitheads import Engine
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import Text
from bitheads.training.data.background import parts_of
from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.heads.objectives import Objective
from bitheads.training.many_heads.linear import means
from bitheads.training.metrics import pearson, spearman, summarize

Float32 = NDArray[np.float32]
Parts = Mapping[str, LabelledTexts]
"""train, dev and test."""

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization, of which the best on dev is kept."""


def logistic_regressions(engine: Engine, parts: Parts, objective: Objective) -> dict[str, float]:
    """One per label, with thresholds chosen as those of a head; of `multi_label`."""
    found = {name: embeddings(engine, data.texts) for name, data in parts.items()}
    targets = {name: objective.targets(data) for name, data in parts.items()}
    loss = objective.new_loss(targets["train"])
    best: tuple[float, dict[str, Float32]] | None = None
    for strength in STRENGTHS:
        model = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=1000))
        model.fit(found["train"], targets["train"].astype(np.int64))
        logits = {
            name: model.decision_function(found[name]).astype(np.float32)
            for name in ("dev", "test")
        }
        score = objective.score(logits["dev"], targets["dev"], loss)
        if best is None or score > best[0]:
            best = score, logits
    assert best is not None, "there are strengths"
    decided = objective.decide(best[1]["dev"], targets["dev"], loss)
    logits_of_test = best[1]["test"] * np.float32(decided.scale)
    prediction = Prediction(objective.labels, logits_of_test, objective.kind, decided.decision)
    return objective.metrics(prediction, targets["test"])


def ridge(engine: Engine, parts: Parts, objective: Objective) -> dict[str, float]:
    """Of the labels' places, rounded to the nearest; of `ordinal`."""
    found = {name: embeddings(engine, data.texts) for name, data in parts.items()}
    targets = {name: objective.targets(data) for name, data in parts.items()}
    last = len(objective.labels) - 1
    best: tuple[float, Float32] | None = None
    for strength in STRENGTHS:
        model = Ridge(alpha=1 / strength).fit(found["train"], targets["train"])
        places = np.clip(model.predict(found["dev"]).round(), 0, last)
        error = float(np.abs(places - targets["dev"]).mean())
        if best is None or error < best[0]:
            best = error, model.predict(found["test"]).astype(np.float32)
    assert best is not None, "there are strengths"
    values, truth = best[1], targets["test"]
    places = np.clip(values.round(), 0, last).astype(np.int64)
    return {
        **summarize(truth, places, last + 1),
        "mean_absolute_error": float(np.abs(places - truth).mean()),
        "spearman": spearman(values, truth),
    }


def cosine(engine: Engine, parts: Parts, objective: Objective) -> dict[str, float]:
    """Of the embeddings of a pair's texts, with nothing trained; of `regression`."""
    data = parts["test"]
    first, second = (embeddings(engine, [parts_of(text)[i] for text in data.texts]) for i in (0, 1))
    cosines, truth = (first * second).sum(axis=1), objective.targets(data)
    return {"spearman": spearman(cosines, truth), "pearson": pearson(cosines, truth)}


MODELS = {"multi_label": logistic_regressions, "ordinal": ridge, "regression": cosine}
"""By the head's kind."""


def embeddings(engine: Engine, texts: list[Text] | list[str]) -> Float32:
    """The mean of each text's tokens at length 1, float32 [texts, dim]."""
    return means(engine.encode(texts))
