"""`regression`: squared error of standardized scores; the standardization ends in the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Prediction
from bitheads.training.data.labelled_texts import LabelledTexts, range_of
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.objectives.objective import Decided, Float32, Objective, Targets
from bitheads.training.metrics import pearson, spearman


class StandardizedError(nn.Module):
    """Mean squared error of (target - mean) / deviation."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        error = logits[:, 0] - (targets - self.mean) / self.deviation
        return (error * error).mean()


class RegressionObjective(Objective):
    """Targets are float32 [texts], scores."""

    kind = "regression"
    score_name = "squared error, negative"
    own_options = frozenset({"value_range"})

    @classmethod
    def of(cls, train: LabelledTexts, options: DecisionOptions) -> RegressionObjective:
        found = range_of(train)
        return cls((), replace(options, value_range=options.value_range or found))

    def targets(self, data: LabelledTexts) -> Targets:
        return data.scores()

    def new_loss(self, targets: Targets) -> nn.Module:
        return StandardizedError(float(targets.mean()), float(targets.std()))

    def score(self, logits: Float32, targets: Targets, loss: nn.Module) -> float:
        assert isinstance(loss, StandardizedError)
        error = logits[:, 0] * loss.deviation + loss.mean - targets
        return -float((error * error).mean())

    def decide(self, logits: Float32, targets: Targets, loss: nn.Module) -> Decided:
        assert isinstance(loss, StandardizedError)
        return Decided(loss.deviation, loss.mean, Decision(value_range=self.options.value_range))

    def metrics(self, prediction: Prediction, targets: Targets) -> dict[str, float]:
        values = prediction.values
        assert values is not None
        return {
            "spearman": spearman(values, targets),
            "pearson": pearson(values, targets),
            "mean_absolute_error": float(np.abs(values - targets).mean()),
        }
