"""The mistakes of which a head was surest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypedDict

import numpy as np

from bitheads.engine.kinds import KINDS
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import Text
from bitheads.training.data.background import parts_of
from bitheads.training.many_heads.scores import Answers

MOST = 10


class Mistake(TypedDict):
    """One answer that is not right.

    Attributes:
        text: one, or the two of a pair.
        row: of the texts that were judged, from 0.
        sure: how sure the head was; of a value, how far off it was.
    """

    text: list[str]
    row: int
    answer: str
    truth: str
    sure: float


def mistakes(prediction: Prediction, texts: Sequence[Text], truth: Answers) -> list[Mistake]:
    """At most MOST, those first of which the head was surest; of values, those farthest off."""
    found = _OF_KIND[prediction.kind](prediction, texts, truth)
    return [
        Mistake(
            text=[*parts_of(texts[row])],
            row=row,
            answer=answer,
            truth=right,
            sure=sure,
        )
        for row, answer, right, sure in islice(found, MOST)
    ]


Found = Iterator[tuple[int, str, str, float]]
"""Row, answer, truth, how sure."""


def _of_one_label(prediction: Prediction, texts: Sequence[Text], truth: Answers) -> Found:
    labels, best, sure = prediction.labels, prediction.best, prediction.probability
    for row in np.argsort(-sure, kind="stable").tolist():
        if best[row] != truth[row]:
            yield row, labels[best[row]], labels[truth[row]], float(sure[row])


def _of_labels(prediction: Prediction, texts: Sequence[Text], truth: Answers) -> Found:
    """Of each text the label that is most wrong: found and not there, or there and not found."""
    found, probabilities = prediction.has_label, prediction.probabilities
    sure = np.where(found, probabilities, 1 - probabilities)
    sure = np.where(found == truth, -1, sure)
    for row in np.argsort(-sure.max(axis=1), kind="stable").tolist():
        label = int(sure[row].argmax())
        if sure[row, label] < 0:
            return
        name = prediction.labels[label]
        said = (name, f"not {name}") if found[row, label] else (f"not {name}", name)
        yield row, *said, float(sure[row, label])


def _of_value(prediction: Prediction, texts: Sequence[Text], truth: Answers) -> Found:
    values = prediction.values
    assert values is not None, "its kind has values"
    off = np.abs(values - truth)
    for row in np.argsort(-off, kind="stable").tolist():
        if off[row] > 0:
            yield row, f"{values[row]:.3g}", f"{truth[row]:.3g}", float(off[row])


def _of_spans(prediction: Prediction, texts: Sequence[Text], truth: Answers) -> Found:
    """Spans that are found and not there."""
    index = {label: i for i, label in enumerate(prediction.labels)}
    right = set(map(tuple, truth.tolist()))
    wrong: list[tuple[int, Any]] = [
        (row, span)
        for row, spans in enumerate(prediction.spans)
        for span in spans
        if (row, span.start, span.end, index[span.label]) not in right
    ]
    for row, span in sorted(wrong, key=lambda item: -item[1].probability):
        text = str(texts[row])
        there = [
            f"{prediction.labels[label]}: {text[start:end]}"
            for of, start, end, label in truth.tolist()
            if of == row and start < span.end and span.start < end
        ]
        answer = f"{span.label}: {text[span.start : span.end]}"
        yield row, answer, ", ".join(there) or "no span", float(span.probability)


_OF_KIND = {
    "single_label": _of_one_label,
    "multi_label": _of_labels,
    "ordinal": _of_one_label,
    "regression": _of_value,
    "token_label": _of_spans,
}
assert _OF_KIND.keys() == KINDS.keys(), "each kind has its mistakes"
