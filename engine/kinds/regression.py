"""`regression`: one number, which is the logit itself, kept within a range; there are no labels."""

from __future__ import annotations

import numpy as np

from bitheads.engine.kinds.decision import Decision
from bitheads.engine.kinds.kind import Float32, Kind, Labels


class Regression(Kind):
    """See the module."""

    name = "regression"
    settings = frozenset({"value_range"})
    parts = ("value",)

    def num_logits(self, labels: Labels) -> int:
        return 1

    def check(self, labels: Labels, decision: Decision) -> None:
        super().check(labels, decision)
        if labels:
            raise ValueError(f"got labels {labels!r}, expected none: its answer is a number")
        if decision.value_range is None:
            raise ValueError("got no value_range, expected the least and the largest value")

    def probabilities(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        return np.empty((len(logits), 0), np.float32)

    def values(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        assert decision.value_range is not None, "checked when the head was made"
        low, high = np.array(decision.value_range, np.float32)
        result: Float32 = np.clip(logits[:, 0], low, high)
        return result
