"""The texts of a call, each of them once: what is equal is encoded, and answered, only once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import Text


@dataclass(frozen=True, eq=False)
class DistinctTexts:
    """What is to be encoded for a call, and where the call's texts are in that.

    Attributes:
        texts: in the order of the call's; themselves if no two of those are equal.
        places: int64 [texts of the call], which of `texts` each is; None if no two are equal.
    """

    texts: Sequence[Text]
    places: NDArray[np.int64] | None = None

    @property
    def times(self) -> NDArray[np.int64]:
        """How often each of `texts` is in the call, int64 [texts]."""
        if self.places is None:
            return np.ones(len(self.texts), np.int64)
        return np.bincount(self.places, minlength=len(self.texts))


def find_distinct(
    texts: Sequence[Text], tokenizer: TextTokenizer, split: bool = False, first_index: int = 0
) -> DistinctTexts:
    """Those of a call.

    Args:
        texts: a sequence, but what is in it may be anything.
        split: whether long texts are read in windows. Pairs cannot be, and only who tokenizes them
            knows which one would have to: a call that has pairs keeps its texts, so that it is
            called by its place.
        first_index: what the first of the texts is called in errors.

    Raises InputError for what is no text, if two of them may be equal: who tokenizes them finds
    that of others.
    """
    if len(texts) < 2 or _all_differ(texts):
        return DistinctTexts(texts)
    places: dict[tuple[str, ...], int] = {}
    checked = tokenizer.check(texts, first_index)
    found = np.array([places.setdefault(text, len(places)) for text in checked], np.int64)
    has_pairs = any(len(text) == 2 for text in places)
    if len(places) == len(texts) or (split and has_pairs):
        return DistinctTexts(texts)
    once = [(text[0], text[1]) if len(text) == 2 else text[0] for text in places]
    return DistinctTexts(once, found)


def _all_differ(texts: Sequence[Text]) -> bool:
    try:
        return len(set(texts)) == len(texts)
    except TypeError:  # a pair in a list, or no text at all
        return False
