"""Tags of words, of which one that goes on with a span comes after a word of that span alone.

Tags are outside of any span, and for each label the word that begins a span and those that go on
with it (Ramshaw and Marcus 1995): O, B-first, I-first, B-second, I-second and so on. I-first comes
after B-first or I-first alone. Such a sequence is as likely as the exponential of its logits' sum,
as in a conditional random field whose transitions are free or forbidden (Lafferty et al. 2001).

The kernels compute it, for both hosts; to the bit it is in `kernels/SPEC.md`, and in NumPy in
`engine/kinds/tag_sequences_reference.py`. They are loaded when they are asked: who only reads a
head or answers has no need of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def best_tags(logits: Float32, offsets: Int64) -> Int64:
    """The tag of each word, int64 [words].

    Each word's likeliest, if a text's may follow each other so. Else those with the largest sum of
    logits, in float64, of all that may (Viterbi's algorithm); of equal sums, the first tag, and of
    a span its beginning.

    Args:
        logits: float32 [words, 1 + 2 labels].
        offsets: int64 [texts + 1]; text i owns the words from offsets[i] to offsets[i + 1].
    """
    from bitheads.engine import _kernels

    tags = np.empty(len(logits), np.int64)
    _kernels.best_tags(np.ascontiguousarray(logits), offsets, tags)
    return tags


def label_probabilities(logits: Float32, offsets: Int64) -> Float32:
    """How likely each word is of a span with each label, float32 [words, labels].

    Computed in float64 over all sequences (the forward-backward algorithm); NaN for the words of a
    text with a logit that is NaN or +inf.

    Args:
        logits, offsets: see `best_tags`.
    """
    from bitheads.engine import _kernels

    found = np.empty((len(logits), logits.shape[1] // 2), np.float32)
    _kernels.label_probabilities(np.ascontiguousarray(logits), offsets, found)
    return found
