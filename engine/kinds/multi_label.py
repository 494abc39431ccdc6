"""`multi_label`: any number of the labels, each under a sigmoid and with a threshold of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.kinds.decision import Decision
from bitheads.engine.kinds.kind import Float32, Kind, Labels, check_labels, sigmoid


class MultiLabel(Kind):
    """See the module."""

    name = "multi_label"
    settings = frozenset({"thresholds"})
    parts = ("labels",)

    def num_logits(self, labels: Labels) -> int:
        return len(labels)

    def check(self, labels: Labels, decision: Decision) -> None:
        super().check(labels, decision)
        check_labels(labels, 1)
        if len(decision.thresholds) != len(labels):
            raise ValueError(
                f"got {len(decision.thresholds)} thresholds, expected one for each of its "
                f"{len(labels)} labels"
            )

    def probabilities(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        return sigmoid(logits)

    def selected(self, logits: Float32, labels: Labels, decision: Decision) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = logits >= np.array(decision.thresholds, np.float32)
        return result
