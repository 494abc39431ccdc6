"""`ordinal`: proportional odds on one logit; the cuts between labels are learned beside it."""

from __future__ import annotations

from functools import partial

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
    mean_loss,
)
from bitheads.training.metrics import expected_calibration_error, spearman, summarize


class OrdinalLoss(nn.Module):
    """Negative log likelihood of the labels, given cuts that rise whatever their parameters are."""

    def __init__(self, shares: torch.Tensor) -> None:
        """shares: float32 [labels], of the training texts: where the cuts begin."""
        super().__init__()
        below = torch.cumsum(shares, 0)[:-1].clamp(1e-3, 1 - 1e-3)
        cuts = torch.logit(below)
        steps = (cuts[1:] - cuts[:-1]).clamp_min(1e-2)
        self.first = nn.Parameter(cuts[:1].clone())
        self.log_steps = nn.Parameter(torch.log(steps))

    @property
    def cuts(self) -> torch.Tensor:
        """[labels - 1], rising."""
        return torch.cat([self.first, self.first + torch.cumsum(self.log_steps.exp(), 0)])

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, scale: float = 1.0
    ) -> torch.Tensor:
        edges = scale * (self.cuts - logits)  # [texts, labels - 1]
        zero = torch.zeros_like(edges[:, :1])
        # log(sigmoid(upper) - sigmoid(lower)), of which either may be the end of the line.
        upper = torch.cat([edges, zero + torch.inf], 1).gather(1, targets[:, None])[:, 0]
        lower = torch.cat([zero - torch.inf, edges], 1).gather(1, targets[:, None])[:, 0]
        inside = torch.sigmoid(upper) - torch.sigmoid(lower)
        return -torch.log(inside.clamp_min(1e-12)).mean()


class OrdinalObjective(Objective):
    """Targets are int64 [texts], places of labels from the lowest on."""

    kind = "ordinal"
    score_name = "mean absolute error, negative"
    own_options = frozenset({"order", "abstain_below"})

    @classmethod
    def of(cls, train: LabelledTexts, options: DecisionOptions) -> OrdinalObjective:
        return cls(classes_of(train, options.order), options)

    def targets(self, data: LabelledTexts) -> Targets:
        return data.label_ids(self.labels)

    def new_loss(self, targets: Targets) -> nn.Module:
        counts = np.bincount(targets, minlength=len(self.labels))
        return OrdinalLoss(torch.from_numpy((counts / counts.sum()).astype(np.float32)))

    def score(self, logits: Float32, targets: Targets, loss: nn.Module) -> float:
        places = (logits >= self._cuts(loss)).sum(axis=1)
        return -float(np.abs(places - targets).mean())

    def decide(self, logits: Float32, targets: Targets, loss: nn.Module) -> Decided:
        scale = best_scale(lambda s: mean_loss(partial(loss, scale=s), logits, targets))
        cuts = self._cuts(loss) * np.float32(scale)
        for i in range(1, len(cuts)):  # labels that no text has
            cuts[i] = max(cuts[i], np.nextafter(cuts[i - 1], np.float32(np.inf)))
        abstain = self.options.abstain_below
        return Decided(scale, 0.0, Decision(cuts=tuple(cuts.tolist()), abstain_below=abstain))

    @staticmethod
    def _cuts(loss: nn.Module) -> Float32:
        assert isinstance(loss, OrdinalLoss)
        cuts: Float32 = loss.cuts.detach().cpu().numpy().astype(np.float32)
        return cuts

    def metrics(self, prediction: Prediction, targets: Targets) -> dict[str, float]:
        values = prediction.values
        assert values is not None
        return {
            **summarize(targets, prediction.best, len(self.labels)),
            "mean_absolute_error": float(np.abs(prediction.best - targets).mean()),
            "spearman": spearman(values, targets),
            "ece": expected_calibration_error(prediction.probabilities, targets, prediction.best),
        }
