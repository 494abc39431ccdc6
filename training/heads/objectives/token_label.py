"""`token_label`: cross entropy of words' tags; whole spans decide when to stop, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.words import END, START, Words
from bitheads.engine.kinds import NO_DECISION
from bitheads.engine.kinds.tag_sequences import best_tags, label_probabilities
from bitheads.engine.kinds.token_label import TokenLabel, least
from bitheads.engine.predictions import Prediction
from bitheads.training.data.labelled_texts import LabelledTexts, classes_of
from bitheads.training.heads.config import FIT_OF_WORDS
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.objectives.objective import (
    Decided,
    Float32,
    Objective,
    Targets,
    best_scale,
    cross_entropy,
)
from bitheads.training.metrics import Spans, expected_calibration_error, span_f1, span_metrics

STRENGTHS = tuple(np.linspace(0, 1.5, 13))
"""What is tried as the weight of SequenceLoss.shift."""

USUAL_STRENGTH = 0.75
"""That by which epochs are compared."""


class SequenceLoss(nn.Module):
    """Cross entropy of tags, and what their logits want added for whole sequences to be likely.

    Attributes:
        shift: float32 [num_logits], the log odds of what the training texts' spans do: of a tag
            that goes on with a span, how much likelier it is after a word of that span than
            anywhere; of one that begins a span, how likely such a word is to be its last. (Log
            posterior - log prior + log transition, Bourlard and Morgan 1994; as only words of a
            span can go on with it, transitions are logits of single tags.)
    """

    shift: torch.Tensor

    def __init__(self, targets: SpanTargets, num_logits: int, balanced: bool) -> None:
        super().__init__()
        tags = targets.tags
        assert tags is not None, "the texts are encoded"
        self.each = cross_entropy(tags, num_logits, balanced)
        counts = np.bincount(tags, minlength=num_logits) + 0.5
        begins, goes_on = counts[1::2], counts[2::2]
        shift = np.zeros(num_logits)
        shift[1::2] = np.log(begins / (begins + goes_on))
        anywhere = goes_on / counts.sum()
        shift[2::2] = np.log(goes_on / (begins + goes_on)) - np.log(anywhere)
        shift[2::2] += np.log(1 - (goes_on / counts.sum()).sum())
        self.register_buffer("shift", torch.from_numpy(shift.astype(np.float32)))

    def forward(self, logits: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.each(logits, tags)
        return loss


@dataclass(frozen=True, eq=False)
class SpanTargets:
    """The spans of some texts.

    Attributes:
        spans: int64 [spans, 4], see LabelledTexts.spans.
        words: None before the texts are encoded.
        tags: int64 [words], see engine.kinds.token_label.
    """

    spans: Spans
    words: Words | None = None
    tags: NDArray[np.int64] | None = None

    @property
    def num_lost(self) -> int:
        """How many spans begin or end with a word that has no token, so that no head finds them."""
        words = self.words
        assert words is not None, "the texts are encoded"
        texts = np.repeat(np.arange(len(words)), np.diff(words.offsets)).tolist()
        starts = set(zip(texts, words.table[:, START].tolist(), strict=True))
        ends = set(zip(texts, words.table[:, END].tolist(), strict=True))
        return sum(
            (text, start) not in starts or (text, end) not in ends
            for text, start, end, _ in self.spans.tolist()
        )


class TokenLabelObjective(Objective):
    """Targets are SpanTargets; the loss reads their tags."""

    kind = "token_label"
    score_name = "F1 of whole spans"
    own_options = frozenset({"balanced"})
    fit_config = FIT_OF_WORDS

    @classmethod
    def of(cls, train: LabelledTexts, options: DecisionOptions) -> TokenLabelObjective:
        return cls(classes_of(train), options)

    def targets(self, data: LabelledTexts) -> Targets:
        return SpanTargets(data.spans(self.labels))

    def encoded(self, targets: Targets, features: PackedFeatures) -> tuple[Targets, PackedFeatures]:
        words = features.words
        assert words is not None, "a head of words was asked for"
        return SpanTargets(targets.spans, words, _tags(targets.spans, words)), features.of_words()

    def remark(self, targets: Targets) -> str:
        lost = targets.num_lost
        if not lost:
            return ""
        return (
            f"{lost} of {len(targets.spans)} spans begin or end with a word of no token, so that "
            "no head finds them"
        )

    def of_rows(self, targets: Targets) -> NDArray[np.int64]:
        tags: NDArray[np.int64] = targets.tags
        return tags

    def new_loss(self, targets: Targets) -> nn.Module:
        return SequenceLoss(targets, self.num_logits, self.options.balanced)

    def score(
        self, logits: Float32, targets: Targets, loss: nn.Module, strength: float = USUAL_STRENGTH
    ) -> float:
        assert isinstance(loss, SequenceLoss)
        shift = strength * loss.shift.cpu().numpy().astype(np.float64)
        shifted = (logits + shift).astype(np.float32)
        found = Prediction(self.labels, shifted, self.kind, words=targets.words)
        return span_f1(targets.spans, self._spans(found))

    def decide(self, logits: Float32, targets: Targets, loss: nn.Module) -> Decided:
        assert isinstance(loss, SequenceLoss)
        best = max(STRENGTHS, key=lambda strength: self.score(logits, targets, loss, strength))
        shift = best * loss.shift.numpy().astype(np.float64)
        scale = self._scale((logits + shift).astype(np.float32), targets)
        return Decided(scale, shift * scale, NO_DECISION)

    def _scale(self, logits: Float32, targets: SpanTargets) -> float:
        """That which makes of a span's probability how often such spans are right."""
        assert targets.words is not None, "the texts are encoded"
        offsets = targets.words.offsets
        found = TokenLabel().spans(logits, offsets, self.labels)
        if not len(found.label):
            return 1.0
        is_right = self._are_right(
            Prediction(self.labels, logits, self.kind, words=targets.words), targets
        )

        def loss_at(scale: float) -> float:
            of_words = label_probabilities(logits * np.float32(scale), offsets)
            sure = least(of_words, found.first, found.last, found.label)
            odds = np.where(is_right, sure, 1 - sure).astype(np.float64)
            return -float(np.log(odds.clip(1e-6)).mean())

        return best_scale(loss_at)

    def metrics(self, prediction: Prediction, targets: Targets) -> dict[str, float]:
        logits, words = prediction.logits, prediction.words
        assert words is not None, "it is of words"
        tags = _tags(targets.spans, words)
        is_right = self._are_right(prediction, targets)
        sure = np.array([s.probability for spans in prediction.spans for s in spans], np.float32)
        return {
            **span_metrics(targets.spans, self._spans(prediction), self.labels),
            "word_accuracy": float((best_tags(logits, words.offsets) == tags).mean()),
            "ece": expected_calibration_error(sure[:, None], np.where(is_right, 0, 1)),
        }

    def _are_right(self, prediction: Prediction, targets: SpanTargets) -> NDArray[np.bool_]:
        """Which of the spans that are found are there, bool [spans]."""
        truth = set(map(tuple, targets.spans.tolist()))
        return np.array(
            [tuple(span) in truth for span in self._spans(prediction).tolist()], np.bool_
        )

    def _spans(self, prediction: Prediction) -> Spans:
        index = {label: i for i, label in enumerate(self.labels)}
        found = [
            (text, span.start, span.end, index[span.label])
            for text, spans in enumerate(prediction.spans)
            for span in spans
        ]
        return np.array(found, np.int64).reshape(-1, 4)


def _tags(spans: Spans, words: Words) -> NDArray[np.int64]:
    """Of each word, int64 [words]. The first word of a span that has a token begins it."""
    tags = np.zeros(len(words.table), np.int64)
    for text, start, end, label in spans.tolist():
        first, last = words.offsets[text : text + 2]
        own = words.table[first:last, START]
        i, j = first + np.searchsorted(own, [start, end])
        tags[i:j] = 2 + 2 * label
        tags[i : min(i + 1, j)] = 1 + 2 * label
    return tags
