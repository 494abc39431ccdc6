"""What a kind of head is trained for: its targets, loss and score, and the decision after that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import nn

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.kinds import KINDS, Decision
from bitheads.engine.predictions import Prediction
from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.heads.config import FitConfig
from bitheads.training.heads.decision_options import DEFAULT_OPTIONS, DecisionOptions

Targets = Any
"""Of some texts, in the type and shape that the objective says; arrays for most."""
Float32 = NDArray[np.float32]

REJECT_WEIGHT = 0.2
"""Of the reject output's loss: more cost accuracy, and made it no better."""


@dataclass(frozen=True)
class Decided:
    """What calibration makes of a head's logits z: scale z + shift, and what decides on those.

    Attributes:
        shift: of all logits, or float64 [num_logits].
    """

    scale: float
    shift: float | NDArray[np.float64]
    decision: Decision


class Objective(ABC):
    """One kind's training, for the labels of one task.

    Attributes:
        kind: a name of engine.kinds.KINDS.
        fit_config: how such a head is trained, unless the user says otherwise.
        score_name: what `score` is.
        labels: of the head.
        options: what the user said.
    """

    kind: ClassVar[str]
    fit_config: ClassVar[FitConfig] = FitConfig()
    score_name: ClassVar[str]
    own_options: ClassVar[frozenset[str]] = frozenset()
    """Fields of DecisionOptions that mean something for this kind; `keep` does for all."""

    def __init__(self, labels: tuple[str, ...], options: DecisionOptions = DEFAULT_OPTIONS):
        self.labels = labels
        self.options = options

    @classmethod
    @abstractmethod
    def of(cls, train: LabelledTexts, options: DecisionOptions) -> Objective:
        """Raises InputError for labels that no head can be trained on."""

    @property
    def num_logits(self) -> int:
        return KINDS[self.kind].num_logits(self.labels)

    @abstractmethod
    def targets(self, data: LabelledTexts) -> Targets:
        """Of labelled texts. Raises InputError, with the line, for a label of no class."""

    def encoded(self, targets: Targets, features: PackedFeatures) -> tuple[Targets, PackedFeatures]:
        """The targets once their texts are encoded, and the codes that logits are of."""
        return targets, features

    def remark(self, targets: Targets) -> str:
        """What there is to be said of encoded targets; "" for nothing."""
        return ""

    def of_rows(self, targets: Targets) -> NDArray[Any]:
        """What the loss reads of targets: as many rows as there are of logits."""
        rows: NDArray[Any] = targets
        return rows

    @abstractmethod
    def new_loss(self, targets: Targets) -> nn.Module:
        """The mean loss of logits [texts, num_logits]; it may have parameters of its own.

        Args:
            targets: of the training texts.
        """

    def loss_with_background(
        self,
        loss: nn.Module,
        inside: torch.Tensor,
        targets: torch.Tensor,
        outside: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of a head with a reject output, on training and on background texts.

        Both weigh the same in that output's, so its probability is that of a text of which nothing
        is known before.

        Args:
            inside, outside: outputs [texts, num_logits + 1].
        """
        rejects = nn.functional.softplus(inside[:, -1]).mean()
        keeps = nn.functional.softplus(-outside[:, -1]).mean()
        of_labels: torch.Tensor = loss(inside[:, :-1], targets)
        return of_labels + REJECT_WEIGHT * (rejects + keeps)

    def reject_scores(self, outputs: Float32) -> Float32:
        """Of outputs [texts, num_logits + 1], float32 [texts]."""
        return KINDS[self.kind].reject_scores(outputs[:, -1] * self.reject_weight, outputs[:, :-1])

    reject_weight: ClassVar[np.float32] = np.float32(1)
    """Of the reject output beside the logits, where its score is made of both."""

    @abstractmethod
    def score(self, logits: Float32, targets: Targets, loss: nn.Module) -> float:
        """How good a head is, the more the better: it decides when training stops."""

    @abstractmethod
    def decide(self, logits: Float32, targets: Targets, loss: nn.Module) -> Decided:
        """Calibrates on the dev texts' logits, float32 [texts, num_logits]."""

    @abstractmethod
    def metrics(self, prediction: Prediction, targets: Targets) -> dict[str, float]:
        """What is said of a trained head."""


def cross_entropy(targets: NDArray[np.int64], classes: int, balanced: bool) -> nn.Module:
    """Of classes that weigh as the training targets have them, or, balanced, all alike."""
    if not balanced:
        return nn.CrossEntropyLoss()
    counts = np.maximum(np.bincount(targets, minlength=classes), 1)
    weights = len(targets) / (classes * counts)
    return nn.CrossEntropyLoss(torch.from_numpy(weights.astype(np.float32)))


def mean_loss(loss: Callable[..., torch.Tensor], logits: Float32, targets: NDArray[Any]) -> float:
    """Of logits [rows, num_logits]."""
    with torch.inference_mode():
        found: float = loss(torch.from_numpy(logits), torch.from_numpy(targets)).item()
    return found


def best_scale(loss_at: Callable[[float], float]) -> float:
    """The scale of logits, 1/20 to 20, with the least loss: 1 / temperature (Guo et al. 2017)."""
    limit = np.log(20.0)
    found = minimize_scalar(lambda x: loss_at(float(np.exp(x))), bounds=(-limit, limit))
    return float(np.exp(found.x))
