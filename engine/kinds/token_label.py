"""`token_label`: spans of a text, each with a label, from one row of logits per word.

The logits are those of tags, see engine.kinds.tag_sequences: outside of any span, and for each
label the word that begins a span and those that go on with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.ragged import ranges
from bitheads.engine.kinds.decision import Decision
from bitheads.engine.kinds.kind import Float32, Kind, Labels, check_labels
from bitheads.engine.kinds.tag_sequences import best_tags, label_probabilities


@dataclass(frozen=True, eq=False)
class FoundSpans:
    """Spans of words of some texts, in order; each array is [spans].

    Attributes:
        first, last: int64, words among those of all texts.
        label: int64.
        probability: float32, the least that one of its words has of being the label's.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    label: NDArray[np.int64]
    probability: Float32


class TokenLabel(Kind):
    """See the module. Its logits are float32 [words, 1 + 2 labels]."""

    name = "token_label"
    parts = ("spans",)
    is_of_words = True

    def num_logits(self, labels: Labels) -> int:
        return 1 + 2 * len(labels)

    def check(self, labels: Labels, decision: Decision) -> None:
        super().check(labels, decision)
        check_labels(labels, 1)

    def probabilities(self, logits: Float32, labels: Labels, decision: Decision) -> Float32:
        """Of words of one text, float32 [words, labels]; see `label_probabilities` for more."""
        return label_probabilities(logits, np.array([0, len(logits)]))

    def spans(self, logits: Float32, offsets: NDArray[np.int64], labels: Labels) -> FoundSpans:
        """The spans of some texts.

        Args:
            offsets: int64 [texts + 1]; text i owns the words from offsets[i] to offsets[i + 1].
        """
        tags = best_tags(logits, offsets)
        begins = tags % 2 == 1
        first = np.flatnonzero(begins)
        after = np.flatnonzero(np.append(begins | (tags == 0), True))
        last = after[np.searchsorted(after, first, side="right")] - 1
        label = tags[first] // 2
        # Most texts have no span, and then nobody asks for their words' probabilities.
        texts = np.unique(np.searchsorted(offsets, first, side="right") - 1)
        rows, own = ranges(offsets[:-1][texts], np.diff(offsets)[texts])
        found = label_probabilities(logits[rows], own)
        places = np.searchsorted(rows, first), np.searchsorted(rows, last)
        return FoundSpans(first, last, label, least(found, *places, label))


def least(
    of_words: Float32, first: NDArray[np.int64], last: NDArray[np.int64], label: NDArray[np.int64]
) -> Float32:
    """Of spans, float32 [spans]; see FoundSpans.

    Args:
        of_words: float32 [words, labels], of label_probabilities.
    """
    counts = last - first + 1
    words, starts = ranges(first, counts)
    own = of_words[words, np.repeat(label, counts)]
    result: Float32 = np.minimum.reduceat(own, starts[:-1])
    return result


def count_inside(logits: Float32) -> int:
    """How many words are likeliest of a span. So many spans there are at most: a span of none of
    those would be likelier left out."""
    return int(np.count_nonzero(logits.argmax(axis=1)))
