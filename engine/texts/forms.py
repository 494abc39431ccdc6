"""Which texts a head answers: those of the form that it was trained on, one text or a pair.

The one rule for all who ask heads: each text is answered by those of the heads that fit it. The
logits of a head are NaN for the others; one that fits no text at all has no answer, and is an error
if it was asked by name.

Pairs are answered by heads of two forms: `pair` reads both texts as the encoder joins them,
`two_texts` reads two that were encoded by themselves, so it has nothing to say of one text's codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.types import Text


class HasForm(Protocol):
    """Any head, as far as this is concerned; see engine.heads.head_file.FoldedHead."""

    @property
    def task(self) -> str: ...
    @property
    def form(self) -> str: ...


AnyHead = TypeVar("AnyHead", bound=HasForm)

PAIR = "pair"
TWO_TEXTS = "two_texts"


def are_pairs(texts: Sequence[Text]) -> NDArray[np.bool_]:
    """Which texts are pairs, bool [texts]."""
    return np.fromiter(
        (not isinstance(text, str) and len(text) == 2 for text in texts), np.bool_, len(texts)
    )


def fit(head: HasForm, pairs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which texts the head was made for, bool [texts].

    Args:
        pairs: bool [texts].
    """
    return pairs if reads_pairs(head) else ~pairs


def reads_pairs(head: HasForm) -> bool:
    """Whether what it answers are pairs, of one form or the other."""
    return head.form in (PAIR, TWO_TEXTS)


def reads_apart(head: HasForm) -> bool:
    """Whether it reads two texts that were encoded by themselves."""
    return head.form == TWO_TEXTS


def of_codes(heads: Sequence[AnyHead], named: bool) -> list[AnyHead]:
    """Those of the heads that answer a text, or a pair, from its own codes.

    Args:
        named: whether the heads were asked by name.

    Raises InputError for one that was named and reads two texts.
    """
    apart = [head for head in heads if reads_apart(head)]
    if named and apart:
        raise InputError(
            f"task {apart[0].task!r}: its head reads two texts that were encoded by themselves, "
            "and codes do not say which go together. Say it to engine.predict_pairs, predict the "
            "pairs of texts, or leave the task out."
        )
    return [head for head in heads if not reads_apart(head)]


def of_two_texts(heads: Sequence[AnyHead], named: bool) -> list[AnyHead]:
    """Those of the heads that read two texts, which were encoded by themselves.

    Args:
        named: whether the heads were asked by name.

    Raises InputError for one that was named and is of another form.
    """
    others = [head for head in heads if not reads_apart(head)]
    if named and others:
        raise InputError(
            f"task {others[0].task!r}: its head reads texts of the form {others[0].form!r}, "
            f"expected {TWO_TEXTS!r} for pairs of texts that were encoded by themselves. Predict "
            "the texts, or leave the task out."
        )
    return [head for head in heads if reads_apart(head)]


def fitting(
    heads: Sequence[AnyHead], pairs: NDArray[np.bool_] | None, named: bool
) -> list[AnyHead]:
    """Those of the heads that have something to say about the texts.

    Args:
        pairs: bool [texts]; None where nobody knows: whoever asks then answers for that.
        named: whether the heads were asked by name.

    Raises InputError for a head that was named and fits none of the texts.
    """
    if pairs is None or not pairs.size:
        return list(heads)
    chosen = [head for head in heads if fit(head, pairs).any()]
    if named and len(chosen) < len(heads):
        misfit = next(head for head in heads if head not in chosen)
        if reads_pairs(misfit):
            reads, got = "pairs of texts", "single texts. Pass (text_a, text_b)"
        else:
            reads, got = "single texts", "pairs. Pass a string"
        raise InputError(
            f"task {misfit.task!r}: its head reads {reads}, but all that it was asked about are "
            f"{got}, or leave the task out."
        )
    return chosen


def leave_out_misfits(
    heads: Sequence[HasForm],
    pairs: NDArray[np.bool_] | None,
    logits: Sequence[NDArray[np.float32]],
) -> None:
    """Makes logits NaN where a head does not fit the text.

    Args:
        pairs: see `fitting`.
        logits: of each head, float32 [texts, classes], written in place.
    """
    if pairs is None:
        return
    for head, answer in zip(heads, logits, strict=True):
        answer[~fit(head, pairs)] = np.nan
