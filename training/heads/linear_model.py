"""The best regularized linear model of a text's mean features: what a head has to beat."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitheads.engine.features.spec import PositionPooling
from bitheads.training.heads.objectives.objective import Objective, Targets
from bitheads.training.heads.pair_features import Codes, PairFeatures
from bitheads.training.heads.two_texts_head import balanced

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]

PENALTIES = tuple(float(penalty) for penalty in np.logspace(0, -7, 15))
"""Of the squared weights beside the mean loss, from the strongest on. The weakest are for many
pairs, whose vectors count little beside their cosine, see `two_texts_head.balance`."""

MOST_TEXTS = 20_000
"""That a linear model is fitted on: of more it is no other."""

STEPS = 60
"""Of L-BFGS at each penalty, from where the one before ended."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Outputs of pooled features x: weight x + bias.

    Attributes:
        weight: float32 [outputs, dim]. bias: float32 [outputs].
        loss: what it was fitted with, whose parameters were, too.
        penalty: its regularization.
        largest: magnitude of an output on the training texts, before the bias.
    """

    weight: Float32
    bias: Float32
    loss: nn.Module
    penalty: float
    largest: float

    def __call__(self, pooled: Float32) -> Float32:
        """float32 [texts, outputs] of float32 [texts, dim]."""
        outputs: Float32 = pooled @ self.weight.T + self.bias
        return outputs


def linear_models(
    pooled: Float32,
    targets: Targets,
    objective: Objective,
    background: Float32 | None = None,
) -> Iterator[LinearModel]:
    """A model for each of PENALTIES, in order, by L-BFGS on all texts at once.

    Args:
        pooled: float32 [texts, dim].
        targets: of those texts.
        background: likewise, of texts that are none of the head's business; with them there is one
            more output.
    """
    inputs = torch.from_numpy(pooled)
    others = None if background is None else torch.from_numpy(background)
    rows = torch.from_numpy(objective.of_rows(targets))
    outputs = objective.num_logits + (background is not None)
    loss_of = objective.new_loss(targets)
    layer = nn.Linear(pooled.shape[1], outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    parameters = [*layer.parameters(), *loss_of.parameters()]
    for penalty in PENALTIES:
        optimizer = torch.optim.LBFGS(
            parameters, max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure(penalty: float = penalty) -> torch.Tensor:
            for parameter in parameters:
                parameter.grad = None
            found = layer(inputs)
            if others is None:
                loss: torch.Tensor = loss_of(found, rows)
            else:
                loss = objective.loss_with_background(loss_of, found, rows, layer(others))
            loss = loss + penalty * layer.weight.square().sum()
            torch.autograd.backward(loss)
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        yield LinearModel(
            layer.weight.detach().numpy().copy(),
            layer.bias.detach().numpy().copy(),
            copy.deepcopy(loss_of),
            penalty,
            float((layer(inputs) - layer.bias).detach().abs().max()),
        )


def pool(features: Codes, pooling: PositionPooling, chunk: int = 256) -> Float32:
    """The mean of each text's features, or with `cls` or `last` pooling those of that token.

    Returns float32 [texts, dim]; of pairs, what is read of two such, see `balanced`.
    """
    if isinstance(features, PairFeatures):
        return balanced(pool(features.texts, pooling), features.pairs)
    pooled = np.empty((len(features), features.spec.dim), np.float32)
    for start in range(0, len(features), chunk):
        part = features[start : start + chunk]
        values, offsets = part.unpack(), part.offsets
        if pooling is PositionPooling.CLS:
            found = values[offsets[:-1]]
        elif pooling is PositionPooling.LAST:
            found = values[offsets[1:] - 1]
        else:
            found = np.add.reduceat(values, offsets[:-1], axis=0)
            found /= part.num_tokens[:, None]
        pooled[start : start + chunk] = found
    return pooled


def drawn(count: int, seed: int) -> Rows:
    """MOST_TEXTS rows of so many, or all."""
    if count <= MOST_TEXTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:MOST_TEXTS])
