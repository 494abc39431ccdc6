"""`ordinal`: one of labels that have an order, from one logit and the cuts between the labels.

The chance of a label above the k-th is sigmoid(logit - cut_k): the proportional odds of McCullagh
(1980), behind the head's own layers. The answer is the median of the labels, which is off by the
fewest places; its value is their mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.kinds.decision import Decision
from bitheads.engine.kinds.kind import Float32, Kind, Labels, check_labels, sigmoid


class Ordinal(Kind):
    """See the module."""

    name = "ordinal"
    settings = frozenset({"cuts", "abstain_below"})
    parts = ("label", "probability", "value")

    def num_logits(self, labels: Labels) -> int:
        return 1

    def check(self, labels: Labels, decision: Decision) -> None:
        super().check(labels, decision)
        check_labels(labels, 2)
        if len(decision.cuts) != len(labels) - 1:
            raise ValueError(
                f"got {len(decision.cuts)} cuts, expected one between each two of its "
                f"{len(labels)} labels"
            )

    def probabilities(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        above = sigmoid(logits.astype(np.float64) - np.array(decision.cuts, np.float32))
        first, last = np.ones((len(logits), 1)), np.zeros((len(logits), 1))
        bounds = np.concatenate([first, above, last], axis=1)
        result: Float32 = (bounds[:, :-1] - bounds[:, 1:]).astype(np.float32)
        return result

    def best(self, logits: Float32, labels: Labels, decision: Decision) -> NDArray[np.int64]:
        above: NDArray[np.int64] = (logits >= np.array(decision.cuts, np.float32)).sum(axis=1)
        return above

    def values(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        """The mean of the labels where all of them are numbers, else of their places from 0."""
        probabilities = self.probabilities(logits, labels, decision).astype(np.float64)
        return (probabilities @ levels_of(labels)).astype(np.float32)


def levels_of(labels: Labels) -> NDArray[np.float64]:
    """What the labels stand for, float64 [labels]: themselves if all are numbers, else places."""
    numbers = [number_of(label) for label in labels]
    places = np.arange(len(labels), dtype=np.float64)
    known = [number for number in numbers if number is not None]
    return np.array(known) if len(known) == len(labels) else places


def number_of(label: str) -> float | None:
    """The number that a label is, written in digits, with a sign or a point: the same in C++."""
    digits = label.removeprefix("-")
    whole, _, part = digits.partition(".")
    is_number = whole.isascii() and whole.isdigit() and (part.isdigit() or "." not in digits)
    return float(label) if is_number and part.isascii() and len(digits) <= 15 else None
