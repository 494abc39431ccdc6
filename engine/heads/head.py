"""What is known of any loaded head, and what all implementations of the heads ask of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec, check_spec
from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Prediction


class Head(Protocol):
    """What is known of any loaded head, see FoldedHead."""

    @property
    def task(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def decision(self) -> Decision: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def form(self) -> str: ...
    @property
    def spec(self) -> FeatureSpec: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def nbytes(self) -> int: ...


def check_features(features: PackedFeatures, heads: Sequence[Head]) -> None:
    """What every implementation of the heads asks for.

    Raises SpecMismatchError for a head of another feature spec, InputError for a text of no
    tokens.
    """
    for head in heads:
        check_spec(f"head {head.task!r}", head.spec, features.spec)
    num_tokens = features.num_tokens
    if not num_tokens.all():
        raise InputError(
            f"text {num_tokens.argmin()} has no tokens, expected at least one (encoders add their "
            "own). Leave it out."
        )


def empty_outputs(heads: Sequence[Head], texts: int) -> list[NDArray[np.float32]]:
    """For each head's outputs, float32 [texts, outputs], not initialized."""
    return [np.empty((texts, head.num_outputs), np.float32) for head in heads]


def outputs_of(prediction: Prediction) -> NDArray[np.float32]:
    """What `predictions_of` made a prediction of, float32 [texts, outputs]."""
    if prediction.reject_logits is None:
        return prediction.logits
    return np.column_stack([prediction.logits, prediction.reject_logits])


def predictions_of(
    heads: Sequence[Head], outputs: Sequence[NDArray[np.float32]]
) -> dict[str, Prediction]:
    """What the heads' outputs, float32 [texts, outputs] of each, mean; by task."""
    found = {}
    for head, output in zip(heads, outputs, strict=True):
        rejects = head.decision.reject_above is not None
        logits, reject = (output[:, :-1], output[:, -1]) if rejects else (output, None)
        found[head.task] = Prediction(head.labels, logits, head.kind, head.decision, reject)
    return found
