"""`multi_label`: binary cross entropy per label, and a threshold for each."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
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
from bitheads.training.metrics import average_precision, f1_of_labels, micro_f1

ENOUGH = 50
"""Dev texts with a label from which on it has a threshold of its own: with fewer, one would be
found by chance, and it shares that of all labels."""


class LabelLoss(nn.Module):
    """Binary cross entropy, summed over labels: a mean would be less the more labels there are, and
    the reject output's loss beside it would be all that a head learns from."""

    def __init__(self, positive_weight: torch.Tensor | None) -> None:
        super().__init__()
        self.each = nn.BCEWithLogitsLoss(pos_weight=positive_weight, reduction="none")

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.each(logits, targets).sum(dim=1).mean()
        return summed


class MultiLabelObjective(Objective):
    """Targets are float32 [texts, labels], 0 or 1."""

    kind = "multi_label"
    score_name = "average precision"
    own_options = frozenset({"balanced", "min_precision", "min_recall"})

    @classmethod
    def of(cls, train: LabelledTexts, options: DecisionOptions) -> MultiLabelObjective:
        return cls(classes_of(train), options)

    def targets(self, data: LabelledTexts) -> Targets:
        return data.label_sets(self.labels).astype(np.float32)

    def new_loss(self, targets: Targets) -> nn.Module:
        if not self.options.balanced:
            return LabelLoss(None)
        positives = np.maximum(targets.sum(axis=0), 1)
        weight = (len(targets) - positives) / positives
        return LabelLoss(torch.from_numpy(weight.astype(np.float32)))

    def score(self, logits: Float32, targets: Targets, loss: nn.Module) -> float:
        return average_precision(logits.ravel(), targets.ravel() > 0)

    def decide(self, logits: Float32, targets: Targets, loss: nn.Module) -> Decided:
        plain = LabelLoss(None)
        scale = best_scale(lambda s: mean_loss(plain, logits * np.float32(s), targets))
        scaled = logits * np.float32(scale)
        shared = self._threshold(scaled.ravel(), targets.ravel() > 0)
        thresholds = [
            self._threshold(scaled[:, i], has) if has.sum() >= ENOUGH else shared
            for i, has in enumerate((targets > 0).T)
        ]
        return Decided(scale, 0.0, Decision(thresholds=tuple(thresholds)))

    def _threshold(self, logits: Float32, has: NDArray[np.bool_]) -> float:
        """The one that is best by what the user asked for, in the middle between two logits."""
        order = np.argsort(-logits, kind="stable")
        ranked, hits = logits[order], np.cumsum(has[order])
        chosen = np.arange(1, len(ranked) + 1)
        precision, recall = hits / chosen, hits / max(1, has.sum())
        options = self.options
        if options.min_precision is not None:
            worth = np.where(precision >= options.min_precision, recall, -1)
        elif options.min_recall is not None:
            worth = np.where(recall >= options.min_recall, precision, -1)
        else:
            worth = 2 * hits / (chosen + max(1, has.sum()))
        worth[:-1][ranked[:-1] == ranked[1:]] = -2  # texts of one logit are chosen together
        last = int(worth.argmax())
        if worth[last] < 0:  # nothing keeps the precision: nothing is selected
            return float(np.float32(ranked[0] + 1))
        below = ranked[last + 1] if last + 1 < len(ranked) else ranked[last] - 1
        return float(np.float32((ranked[last] + below) / 2))

    def metrics(self, prediction: Prediction, targets: Targets) -> dict[str, float]:
        has, found = targets > 0, prediction.has_label
        precisions = [
            average_precision(prediction.logits[:, i], has[:, i])
            for i in range(len(self.labels))
            if has[:, i].any()
        ]
        return {
            "micro_f1": micro_f1(has, found),
            "macro_f1": float(f1_of_labels(has, found).mean()),
            "micro_average_precision": average_precision(prediction.logits.ravel(), has.ravel()),
            "macro_average_precision": float(np.mean(precisions)) if precisions else 0.0,
            "exact_match": float((has == found).all(axis=1).mean()),
            "brier": float(((prediction.probabilities - targets) ** 2).mean()),
        }
