"""What is known of any loaded head, and what all implementations of the heads ask of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bitheads.engine.errors import InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec, check_spec


class Head(Protocol):
    """What is known of any loaded head, see FoldedHead."""

    @property
    def task(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
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
