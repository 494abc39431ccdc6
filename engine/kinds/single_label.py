"""`single_label`: one of a closed list of labels; logits are the classes', under a softmax."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.kinds.decision import Decision
from bitheads.engine.kinds.kind import Float32, Kind, Labels, check_labels


class SingleLabel(Kind):
    """See the module."""

    name = "single_label"
    settings = frozenset({"abstain_below"})
    parts = ("label", "probability")

    def num_logits(self, labels: Labels) -> int:
        return len(labels)

    def check(self, labels: Labels, decision: Decision) -> None:
        super().check(labels, decision)
        check_labels(labels, 2)

    def probabilities(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        # In float64, so that as float32 they are the same in every host and on every processor:
        # abstaining compares them.
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        result: Float32 = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
        return result

    def reject_scores(self, reject_logits: Float32, logits: Float32) -> Float32:
        """The reject output is one more class, held against the likeliest of the others: what no
        class wants is rejected, though it be like no background text."""
        result: Float32 = reject_logits - logits.max(axis=1)
        return result

    def best(self, logits: Float32, labels: Labels, decision: Decision) -> NDArray[np.int64]:
        best: NDArray[np.int64] = logits.argmax(axis=1)
        return best
