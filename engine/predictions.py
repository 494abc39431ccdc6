"""Answers: a task's logits for some texts, and all tasks' of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import UnknownTaskError
from bitheads.engine.kinds import KINDS, NO_DECISION, SINGLE_LABEL, Decision
from bitheads.engine.kinds.kind import sigmoid
from bitheads.engine.types import Stats


@dataclass(frozen=True, eq=False)
class Prediction:
    """One task's answer for some texts.

    Which of the properties below have something to say depends on the kind of the head
    (engine.kinds): `top` of one label, `selected` of any number of them, `values` of numbers.

    Attributes:
        labels: the task's classes; none of a `regression`.
        logits: float32 [texts, classes], or [texts, 1] of an `ordinal` and a `regression`; NaN for
            texts that the task does not answer.
        kind: of the head.
        decision: what makes an answer of the logits.
        reject_logits: of the head's reject output, float32 [texts]; None if it has none.
    """

    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    kind: str = SINGLE_LABEL
    decision: Decision = NO_DECISION
    reject_logits: NDArray[np.float32] | None = None

    def __getitem__(self, texts: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Prediction:
        """The answers for some of the texts."""
        reject = None if self.reject_logits is None else self.reject_logits[texts]
        return replace(self, logits=self.logits[texts], reject_logits=reject)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Of each label, float32 [texts, labels]; NaN as the logits are. They sum to 1 but for
        `multi_label`, and suppose that the text is the task's business."""
        return KINDS[self.kind].probabilities(self.logits, self.labels, self.decision)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which texts have an answer, bool [texts]; the others are not of the head's form."""
        result: NDArray[np.bool_] = ~np.isnan(self.logits[:, 0])
        return result

    @property
    def best(self) -> NDArray[np.int64]:
        """Index of the label that is each text's answer, int64 [texts]; of kinds that give one.

        It means nothing for texts that are not `answered`. Raises TypeError for other kinds.
        """
        return KINDS[self.kind].best(self.logits, self.labels, self.decision)

    @property
    def top(self) -> tuple[str | None, ...]:
        """The label of each text; None where the task does not answer, and for a kind that does not
        give one label."""
        if not KINDS[self.kind].is_one_label:
            return (None,) * len(self.logits)
        answered = zip(self.best, self.answered, strict=True)
        return tuple(self.labels[i] if has_answer else None for i, has_answer in answered)

    @property
    def probability(self) -> NDArray[np.float32]:
        """Of the label that is each text's answer, float32 [texts]; NaN as the logits are.

        Raises TypeError for kinds that give no label.
        """
        best = self.best
        return self.probabilities[np.arange(best.size), best]

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """Which labels each text has, bool [texts, labels]."""
        return KINDS[self.kind].selected(self.logits, self.labels, self.decision)

    @property
    def selected(self) -> tuple[tuple[str, ...], ...]:
        """The labels that each text has; none where the task does not answer."""
        rows = self.has_label
        return tuple(tuple(self.labels[i] for i in np.flatnonzero(row)) for row in rows)

    @property
    def values(self) -> NDArray[np.float32] | None:
        """The number that is the answer, or of an `ordinal` the mean of its labels, float32
        [texts]; NaN as the logits are. None for a kind that gives none."""
        kind = KINDS[self.kind]
        if not kind.has_value:
            return None
        return kind.values(self.logits, self.labels, self.decision)

    @property
    def out_of_domain(self) -> NDArray[np.float32] | None:
        """How likely it is that a text is none of the head's business, float32 [texts].

        None for a head that has no reject output.
        """
        scores = self.reject_scores
        return None if scores is None else sigmoid(scores * np.float32(self.decision.reject_scale))

    @property
    def reject_scores(self) -> NDArray[np.float32] | None:
        """What `accepted` holds against `decision.reject_above`, float32 [texts]; None likewise."""
        if self.reject_logits is None:
            return None
        return KINDS[self.kind].reject_scores(self.reject_logits, self.logits)

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Which answers the head stands by, bool [texts]: all that it gives, if it was not trained
        to refuse. See Decision."""
        accepted = self.answered
        decision = self.decision
        scores = self.reject_scores
        if scores is not None:
            accepted = accepted & (scores <= np.float32(decision.reject_above or 0))
        if decision.abstain_below is not None:
            accepted = accepted & (self.probability >= np.float32(decision.abstain_below))
        return accepted


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
