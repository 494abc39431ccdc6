"""Answers: a task's logits for some texts, and all tasks' of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import UnknownTaskError
from bitheads.engine.types import Stats


@dataclass(frozen=True, eq=False)
class Prediction:
    """One task's answer for some texts.

    Attributes:
        labels: the task's classes.
        logits: float32 [texts, classes]; NaN for texts that the task does not answer.
    """

    labels: tuple[str, ...]
    logits: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the logits, float32 [texts, classes]; NaN as they are."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        result: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
        return result

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which texts have an answer, bool [texts]; the others are not of the head's form."""
        result: NDArray[np.bool_] = ~np.isnan(self.logits[:, 0])
        return result

    @property
    def top(self) -> tuple[str | None, ...]:
        """The likeliest label of each text; None where the task does not answer."""
        best = self.logits.argmax(axis=1)
        answered = zip(best, self.answered, strict=True)
        return tuple(self.labels[i] if has_answer else None for i, has_answer in answered)


class Predictions(Mapping[str, Prediction]):
    """Task -> Prediction, with the cost of the call in `stats`.

    Asking for a task that did not answer raises UnknownTaskError, which is a KeyError.
    """

    def __init__(self, by_task: Mapping[str, Prediction], stats: Stats) -> None:
        self._by_task = dict(by_task)
        self.stats = stats

    def __getitem__(self, task: str) -> Prediction:
        try:
            return self._by_task[task]
        except KeyError:
            raise UnknownTaskError(
                f"task {task!r}: not among the answers, got those of {sorted(self._by_task)}. It "
                "was not asked, or none of the texts is of its head's form: a pair head answers "
                "pairs, all others single texts."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_task)

    def __len__(self) -> int:
        return len(self._by_task)

    def __repr__(self) -> str:
        return f"Predictions({self._by_task!r})"
