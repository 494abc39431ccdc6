"""What is known of any loaded head, and what all implementations of the heads ask of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec, check_spec
from bitheads.engine.features.words import Words
from bitheads.engine.kinds import KINDS, Decision
from bitheads.engine.predictions import Prediction
from bitheads.engine.texts.apart import PairsApart
from bitheads.engine.texts.forms import leave_out_misfits, reads_apart


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
    def num_text_outputs(self) -> int: ...
    @property
    def form(self) -> str: ...
    @property
    def spec(self) -> FeatureSpec: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def nbytes(self) -> int: ...


AnyHead = TypeVar("AnyHead", bound=Head)


def is_of_words(head: Head) -> bool:
    """Whether the head answers words, not texts."""
    return KINDS[head.kind].is_of_words


def reads_words(heads: Sequence[Head]) -> bool:
    """Whether one of the heads answers words."""
    return any(map(is_of_words, heads))


def answer(
    features: PackedFeatures,
    heads: Sequence[AnyHead],
    run: Callable[[PackedFeatures, Sequence[AnyHead]], Sequence[NDArray[np.float32]]],
) -> dict[str, Prediction]:
    """Every head's answers by task, those of words and those of texts.

    Args:
        run: gives each head's outputs, float32 [texts, outputs], whatever its kind: to it, words
            are texts.

    Raises as `check_features`, and as PackedFeatures.of_words where a head wants that.
    """
    check_features(features, heads)
    of_texts = [head for head in heads if not is_of_words(head)]
    of_words = [head for head in heads if is_of_words(head)]
    outputs = run(features, of_texts) if of_texts else []
    leave_out_misfits(of_texts, features.pairs, outputs)
    found = predictions_of(of_texts, outputs)
    if of_words:
        outputs = run(features.of_words(), of_words)
        found |= predictions_of(of_words, outputs, features.words)
    return {head.task: found[head.task] for head in heads}


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
    """For what each head makes of each text's codes, float32 [texts, outputs], not initialized: its
    outputs, or of the form two_texts the texts' vectors."""
    return [np.empty((texts, head.num_text_outputs), np.float32) for head in heads]


def outputs_of(prediction: Prediction) -> NDArray[np.float32]:
    """What `predictions_of` made a prediction of, float32 [texts, outputs]."""
    if prediction.reject_logits is None:
        return prediction.logits
    return np.column_stack([prediction.logits, prediction.reject_logits])


def predictions_of(
    heads: Sequence[Head], outputs: Sequence[NDArray[np.float32]], words: Words | None = None
) -> dict[str, Prediction]:
    """What the heads' outputs, float32 [texts, outputs] or [words, outputs] of each, mean; by task.

    Args:
        words: of the texts, if one of the heads is of words.
    """
    found = {}
    for head, output in zip(heads, outputs, strict=True):
        rejects = head.decision.reject_above is not None
        logits, reject = (output[:, :-1], output[:, -1]) if rejects else (output, None)
        own_words = words if is_of_words(head) else None
        found[head.task] = Prediction(
            head.labels, logits, head.kind, head.decision, reject, own_words
        )
    return found


def predictions_apart(
    heads: Sequence[Head],
    placed: PairsApart,
    of_joint: Mapping[str, Prediction],
    of_pairs: Sequence[NDArray[np.float32]],
) -> dict[str, Prediction]:
    """Every head's answers for the texts of a call, some of whose pairs were encoded as two texts.

    Args:
        of_joint: by task, for the texts that were encoded as they are.
        of_pairs: of each head of the form two_texts, its outputs for the pairs, float32
            [pairs, outputs].
    """
    texts = placed.num_texts
    found = {task: one.among(texts, placed.joint) for task, one in of_joint.items()}
    apart = [head for head in heads if reads_apart(head)]
    for task, one in predictions_of(apart, of_pairs).items():
        found[task] = one.among(texts, placed.rows)
    return {head.task: found[head.task] for head in heads}
