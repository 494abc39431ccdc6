"""Answers: a task's logits for some texts, and all tasks' of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import UnknownTaskError
from bitheads.engine.features.words import END, START, Words
from bitheads.engine.kinds import KINDS, NO_DECISION, SINGLE_LABEL, Decision
from bitheads.engine.kinds.kind import sigmoid
from bitheads.engine.kinds.tag_sequences import label_probabilities
from bitheads.engine.kinds.token_label import FoundSpans, TokenLabel
from bitheads.engine.types import Stats


@dataclass(frozen=True)
class Span:
    """A part of a text, and what it is.

    Attributes:
        start, end: in code points, as Python counts a string's characters: text[start:end].
    """

    start: int
    end: int
    label: str
    probability: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """One task's answer for some texts.

    Which of the properties below have something to say depends on the kind of the head
    (engine.kinds): `top` of one label, `selected` of any number of them, `values` of numbers,
    `spans` of parts of a text.

    Attributes:
        labels: the task's classes; none of a `regression`.
        logits: float32 [texts, classes], or [texts, 1] of an `ordinal` and a `regression`; NaN for
            texts that the task does not answer.
        kind: of the head.
        decision: what makes an answer of the logits.
        reject_logits: of the head's reject output, float32 [texts]; None if it has none.
        words: of a `token_label`, of which the logits are: float32 [words, 1 + 2 classes]; None for
            all other kinds.
    """

    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    kind: str = SINGLE_LABEL
    decision: Decision = NO_DECISION
    reject_logits: NDArray[np.float32] | None = None
    words: Words | None = None

    @property
    def num_texts(self) -> int:
        """How many texts it is for."""
        return len(self.logits) if self.words is None else len(self.words)

    def __getitem__(self, texts: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Prediction:
        """The answers for some of the texts."""
        if self.words is not None:
            rows, _ = self.words.rows_of(texts)
            return replace(self, logits=self.logits[rows], words=self.words[texts])
        reject = None if self.reject_logits is None else self.reject_logits[texts]
        return replace(self, logits=self.logits[texts], reject_logits=reject)

    def among(self, texts: int, rows: NDArray[np.int64]) -> Prediction:
        """The same answers in these rows of more texts, ascending, which it does not answer."""
        if self.words is not None:
            return replace(self, words=self.words.among(texts, rows))
        logits = np.full((texts, self.logits.shape[1]), np.nan, np.float32)
        logits[rows] = self.logits
        reject = None
        if self.reject_logits is not None:
            reject = np.full(texts, np.nan, np.float32)
            reject[rows] = self.reject_logits
        return replace(self, logits=logits, reject_logits=reject)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Of each label, float32 [texts, labels]; NaN as the logits are. They sum to 1 but for
        `multi_label`, and suppose that the text is the task's business. Of a `token_label` those of
        each word to be of a span, float32 [words, labels]."""
        if self.words is not None:
            return label_probabilities(self.logits, self.words.offsets)
        return KINDS[self.kind].probabilities(self.logits, self.labels, self.decision)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which texts have an answer, bool [texts]; the others are not of the head's form."""
        if self.words is not None:
            return self.words.is_single
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
            return (None,) * self.num_texts
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
        """Which labels each text has, bool [texts, labels]; of a `token_label` its spans'."""
        if self.words is not None:
            spans, bounds = self.found_spans
            found = np.zeros((self.num_texts, len(self.labels)), np.bool_)
            found[np.repeat(np.arange(self.num_texts), np.diff(bounds)), spans.label] = True
            return found
        return KINDS[self.kind].selected(self.logits, self.labels, self.decision)

    @property
    def selected(self) -> tuple[tuple[str, ...], ...]:
        """The labels that each text has; none where the task does not answer."""
        rows = self.has_label
        return tuple(tuple(self.labels[i] for i in np.flatnonzero(row)) for row in rows)

    @property
    def spans(self) -> tuple[tuple[Span, ...], ...]:
        """The spans of each text, in order; none where the task does not answer, and for a kind
        that gives none."""
        if self.words is None:
            return ((),) * self.num_texts
        found, bounds = self.found_spans
        starts, ends = self.words.table[found.first, START], self.words.table[found.last, END]
        columns = (starts, ends, found.label, found.probability)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        spans = [Span(start, end, self.labels[label], p) for start, end, label, p in rows]
        return tuple(tuple(spans[i:j]) for i, j in pairwise(bounds.tolist()))

    @property
    def found_spans(self) -> tuple[FoundSpans, NDArray[np.int64]]:
        """The spans of all texts as arrays, and where those of each text begin, int64 [texts + 1].

        Raises TypeError for a kind that gives none.
        """
        kind = KINDS[self.kind]
        if self.words is None or not isinstance(kind, TokenLabel):
            raise TypeError(f"a {self.kind} head gives no spans")
        found = kind.spans(self.logits, self.words.offsets, self.labels)
        return found, np.searchsorted(found.first, self.words.offsets)

    @property
    def truncated_at(self) -> tuple[int | None, ...]:
        """From which code point on a text was not looked for spans; None if all of it was, and for
        a kind that gives none."""
        if self.words is None:
            return (None,) * self.num_texts
        return tuple(None if at < 0 else at for at in self.words.truncated_at.tolist())

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
                "was not asked, or none of the texts is of its head's form: heads of the forms "
                "pair and two_texts answer pairs, all others single texts."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_task)

    def __len__(self) -> int:
        return len(self._by_task)

    def __repr__(self) -> str:
        return f"Predictions({self._by_task!r})"
