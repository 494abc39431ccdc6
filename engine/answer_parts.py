"""What an answer is told in, whatever the head's kind: its parts, and the same in JSON.

A kind says its parts (`engine.kinds`), a decision adds whether the head stands by the answer.
Whoever tells answers has one row per part: HTTP and the command line below, KServe's tensors in
`engine.serve.kserve.outputs`, a backfill's columns in `engine.jobs.answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bitheads.engine.kinds import KINDS, Decision
from bitheads.engine.kinds.kind import sigmoid
from bitheads.engine.predictions import Prediction

Answer = dict[str, Any]
"""Of one text, in JSON: values by part, and perhaps `probabilities` by label."""

DIGITS = 6
"""Of a probability in JSON, behind the point."""


def parts_of(kind: str, decision: Decision) -> tuple[str, ...]:
    """The parts of every answer of such a head, in order.

    `accepted` and `out_of_domain` are told of heads that have something to say there.
    """
    parts: list[str] = [*KINDS[kind].parts]
    if decision.can_refuse:
        parts.append("accepted")
    if decision.reject_above is not None:
        parts.append("out_of_domain")
    return tuple(parts)


def told_decision(labels: Sequence[str], decision: Decision) -> dict[str, Any]:
    """What clients may want to know of a decision, in JSON: logits as probabilities."""

    def probability(logit: float) -> float:
        return round(float(sigmoid(np.array(logit))), DIGITS)

    told: dict[str, Any] = {"can_refuse": decision.can_refuse}
    if decision.thresholds:
        told["thresholds"] = dict(zip(labels, map(probability, decision.thresholds), strict=True))
    if decision.value_range is not None:
        told["value_range"] = list(decision.value_range)
    if decision.abstain_below is not None:
        told["abstain_below"] = decision.abstain_below
    if decision.reject_above is not None:
        told["reject_above"] = probability(decision.reject_above * decision.reject_scale)
    return told


def json_answers(prediction: Prediction, all_probabilities: bool = False) -> list[Answer | None]:
    """One per text; None for texts that the head does not answer.

    Args:
        all_probabilities: of every label. Of a head for several labels those of the selected ones
            are told in any case.
    """
    columns = {
        part: _COLUMNS[part](prediction) for part in parts_of(prediction.kind, prediction.decision)
    }
    if has_probabilities(prediction, all_probabilities):
        columns["probabilities"] = _by_label(prediction, all_probabilities)
    rows = zip(prediction.answered.tolist(), *columns.values(), strict=True)
    answers: list[Answer | None] = [
        dict(zip(columns, row, strict=True)) if has_answer else None for has_answer, *row in rows
    ]
    if prediction.words is not None:
        for answer, at in zip(answers, prediction.truncated_at, strict=True):
            if answer is not None and at is not None:
                answer["truncated_at"] = at
    return answers


def has_probabilities(prediction: Prediction, all_probabilities: bool) -> bool:
    """Whether labels' probabilities are told of texts; those of spans are told with them."""
    has_labels = gives_labels(prediction.labels, prediction.kind)
    return has_labels and (all_probabilities or "labels" in KINDS[prediction.kind].parts)


def gives_labels(labels: Sequence[str], kind: str) -> bool:
    """Whether such a head has a probability for each of its labels of a text."""
    return bool(labels) and not KINDS[kind].is_of_words


def _by_label(prediction: Prediction, all_labels: bool) -> Iterable[dict[str, float]]:
    probabilities = prediction.probabilities.tolist()
    if all_labels:
        for row in probabilities:
            yield dict(zip(prediction.labels, _rounded(row), strict=True))
    else:
        for row, is_selected in zip(probabilities, prediction.has_label, strict=True):
            selected = is_selected.nonzero()[0].tolist()
            yield {prediction.labels[i]: round(row[i], DIGITS) for i in selected}


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, DIGITS) for value in values]


def _values(prediction: Prediction) -> list[float]:
    """With as few digits as say which float32 it is: their size is the head's, and may be tiny."""
    assert prediction.values is not None, "asked of kinds that have one"
    return [float(str(value)) for value in prediction.values]


def spans_of(prediction: Prediction) -> Iterable[list[dict[str, Any]]]:
    """Of each text those that it has, in order."""
    for spans in prediction.spans:
        yield [{**vars(span), "probability": round(span.probability, DIGITS)} for span in spans]


def _out_of_domain(prediction: Prediction) -> list[float]:
    assert prediction.out_of_domain is not None, "asked of heads that have a reject output"
    return _rounded(prediction.out_of_domain.tolist())


_COLUMNS: dict[str, Callable[[Prediction], Iterable[Any]]] = {
    "label": lambda prediction: prediction.top,
    "probability": lambda prediction: _rounded(prediction.probability.tolist()),
    "labels": lambda prediction: map(list, prediction.selected),
    "value": _values,
    "spans": spans_of,
    "accepted": lambda prediction: prediction.accepted.tolist(),
    "out_of_domain": _out_of_domain,
}
