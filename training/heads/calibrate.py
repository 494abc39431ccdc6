"""What is decided once a head is trained: its logits' scale, its decision, what it rejects.

Scales and shifts end in the output's weights, so that they cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.kinds import Decision
from bitheads.training.heads.fit import Fitted, Trainable, evaluate
from bitheads.training.heads.objectives.objective import Objective
from bitheads.training.heads.pair_features import Codes

Float32 = NDArray[np.float32]

EVERYTHING = 3e38
"""A reject_above that rejects nothing."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A head's outputs z become scale z + shift, float64 [outputs] each, and are decided on so."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    decision: Decision

    def __call__(self, outputs: Float32) -> Float32:
        """float32 [texts, outputs], of those of the head before."""
        found: Float32 = (outputs * self.scale + self.shift).astype(np.float32)
        return found

    def apply(self, head: Trainable) -> None:
        """Puts both into the head's weights, in place."""
        scale, shift = torch.from_numpy(self.scale).float(), torch.from_numpy(self.shift).float()
        head.mlp.scale_outputs(scale, shift)


def calibrate(fitted: Fitted, objective: Objective, background: Codes | None) -> Calibrated:
    """Chooses what `objective` decides, on texts that were held back; `choose_rejection` does the
    rest.

    Args:
        background: texts that the head was not trained on, if it has a reject output.
    """
    outputs, targets = fitted.held_out, fitted.targets
    decided = objective.decide(outputs[:, : objective.num_logits], targets, fitted.loss)
    scale = np.full(outputs.shape[1], decided.scale)
    shift = np.zeros(outputs.shape[1])
    shift[: objective.num_logits] = decided.shift
    if background is None:
        return Calibrated(scale, shift, decided.decision)
    inside = objective.reject_scores(outputs)
    outside = objective.reject_scores(evaluate(fitted.head, background))
    slope, intercept = _platt(inside, outside)
    # Scores are those of scaled outputs: decided.scale times, plus the reject output's shift.
    scale[-1] *= objective.reject_weight
    shift[-1] = intercept / slope * decided.scale
    decision = replace(
        decided.decision, reject_above=EVERYTHING, reject_scale=slope / decided.scale
    )
    return Calibrated(scale, shift, decision)


def _platt(inside: Float32, outside: Float32) -> tuple[float, float]:
    """Slope, above 0, and intercept of the log odds of being from outside, both weighing alike."""
    scores = np.concatenate([inside, outside]).astype(np.float64)[:, None]
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    found = LogisticRegression(class_weight="balanced").fit(scores, is_outside)
    return max(float(found.coef_[0, 0]), 1e-3), float(found.intercept_[0])


def choose_rejection(head: FoldedHead, scores: Float32, keep: float) -> FoldedHead:
    """The head with the reject_above that lets through so much of texts with these scores."""
    limit = float(np.quantile(scores, keep, method="higher"))
    return replace(head, decision=replace(head.decision, reject_above=limit))
