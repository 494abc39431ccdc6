"""What a kind of head is to all who ask heads: one object per kind, beside it in this folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.kinds.decision import Decision

Labels = tuple[str, ...]
Float32 = NDArray[np.float32]
Part = Literal["label", "probability", "labels", "value", "spans"]
"""What an answer may be made of; each host has one row for each, see engine.answer_parts."""


class Kind(ABC):
    """How logits float32 [texts, num_logits] become answers.

    Of a text that is not for the head, logits are NaN, and so is what is computed of them.

    Attributes:
        name: as in a head's file.
        settings: the fields of a Decision, but for those of rejecting, that it takes.
        parts: what its answer is made of, what matters most first.
        is_of_words: whether a head answers each word of a text (engine.features.words), and so
            single texts alone; its logits are then float32 [words, num_logits].
    """

    name: str
    settings: frozenset[str] = frozenset()
    parts: tuple[Part, ...] = ()
    is_of_words: bool = False

    @property
    def is_one_label(self) -> bool:
        """Whether its answer is one of the labels."""
        return "label" in self.parts

    @property
    def has_value(self) -> bool:
        """Whether its answer is, or has, a number."""
        return "value" in self.parts

    @abstractmethod
    def num_logits(self, labels: Labels) -> int:
        """Outputs of a head, without its reject output."""

    def check(self, labels: Labels, decision: Decision) -> None:
        """Raises ValueError that says what is wrong, for labels and decisions that are not its."""
        given = {*decision.to_json()} - {"reject_above", "reject_scale"}
        if other := given - self.settings:
            raise ValueError(f"its decision has {sorted(other)}, which a {self.name} head has not")
        if len(set(labels)) != len(labels):
            raise ValueError(f"got labels {labels!r}, expected all different")

    @abstractmethod
    def probabilities(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        """Of each label, float32 [texts, labels]."""

    def best(self, logits: Float32, labels: Labels, decision: Decision) -> NDArray[np.int64]:
        """The label that is the answer, int64 [texts]; of kinds that give one label."""
        raise TypeError(f"a {self.name} head gives no label")

    def selected(self, logits: Float32, labels: Labels, decision: Decision) -> NDArray[np.bool_]:
        """The labels that a text has, bool [texts, labels]; none where the logits are NaN."""
        found = np.zeros((len(logits), len(labels)), np.bool_)
        if self.is_one_label and len(logits):
            found[np.arange(len(logits)), self.best(logits, labels, decision)] = True
            found[np.isnan(logits[:, 0])] = False
        return found

    def values(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        """The number that is the answer, or part of it, float32 [texts]; of kinds that have one."""
        raise TypeError(f"a {self.name} head gives no value")

    def reject_scores(self, reject_logits: Float32, logits: Float32) -> Float32:
        """How much speaks for a text being none of the head's business, float32 [texts].

        Args:
            reject_logits: of the reject output, float32 [texts].
        """
        return reject_logits


def sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-x)) in the type of x, without overflow."""
    small = np.exp(-np.abs(logits))
    result: NDArray[Any] = np.where(logits >= 0, 1, small) / (1 + small)
    return result


def check_labels(labels: Labels, least: int) -> None:
    """Raises ValueError for fewer."""
    if len(labels) < least:
        raise ValueError(f"got labels {labels!r}, expected at least {least}")
