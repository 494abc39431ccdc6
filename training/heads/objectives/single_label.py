"""`single_label`: cross entropy, stopped by accuracy, calibrated by a temperature."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Prediction
from bitheads.training.data.labelled_texts import LabelledTexts, classes_of
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.objectives.objective import (
    Decided,
    Float32,
    Objective,
    Targets,
    best_scale,
    cross_entropy,
    mean_loss,
)
from bitheads.training.metrics import brier, expected_calibration_error, summarize

BACKGROUND_WEIGHT = 0.5
"""Of the background texts' loss beside that of the training texts."""


class SingleLabelObjective(Objective):
    """Targets are int64 [texts], indices of labels."""

    kind = "single_label"
    score_name = "accuracy"
    own_options = frozenset({"balanced", "abstain_below"})

    @classmethod
    def of(cls, train: LabelledTexts, options: DecisionOptions) -> SingleLabelObjective:
        return cls(classes_of(train), options)

    def targets(self, data: LabelledTexts) -> Targets:
        return data.label_ids(self.labels)

    def new_loss(self, targets: Targets) -> nn.Module:
        return cross_entropy(targets, len(self.labels), self.options.balanced)

    def loss_with_background(
        self,
        loss: nn.Module,
        inside: torch.Tensor,
        targets: torch.Tensor,
        outside: torch.Tensor,
    ) -> torch.Tensor:
        """The reject output is one more class under the softmax: so classes learn to be unlikely of
        what is none of their business, texts unlike all background, too."""
        assert isinstance(loss, nn.CrossEntropyLoss)
        weight = loss.weight
        if weight is not None:
            weight = torch.cat([weight, weight.new_ones(1)])
        rejected = torch.full((len(outside),), len(self.labels), device=targets.device)
        cross_entropy = nn.functional.cross_entropy
        of_labels = cross_entropy(inside, targets, weight)
        return of_labels + BACKGROUND_WEIGHT * cross_entropy(outside, rejected)

    reject_weight = np.float32(0.25)

    def score(self, logits: Float32, targets: Targets, loss: nn.Module) -> float:
        return float((logits.argmax(axis=1) == targets).mean())

    def decide(self, logits: Float32, targets: Targets, loss: nn.Module) -> Decided:
        # Of the plain loss: a balanced one is no likelihood, and its probabilities are none.
        plain = nn.CrossEntropyLoss()
        scale = best_scale(lambda s: mean_loss(plain, logits * np.float32(s), targets))
        return Decided(scale, 0.0, Decision(abstain_below=self.options.abstain_below))

    def metrics(self, prediction: Prediction, targets: Targets) -> dict[str, float]:
        classes, probabilities = len(self.labels), prediction.probabilities
        return {
            **summarize(targets, prediction.best, classes),
            "majority": float(np.bincount(targets).max() / len(targets)),
            "ece": expected_calibration_error(probabilities, targets),
            "brier": brier(probabilities, np.eye(classes)[targets]),
        }
