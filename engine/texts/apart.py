"""Pairs as two texts: what is to be encoded where heads read the texts of pairs by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.texts.forms import HasForm, are_pairs, fit, reads_apart
from bitheads.engine.texts.tokenize import check_texts
from bitheads.engine.types import Text


@dataclass(frozen=True, eq=False)
class PairsApart:
    """Where the texts of a call are among those that are encoded for it.

    Attributes:
        num_texts: of the call, single ones and pairs.
        joint: int64, which of them are encoded as they are; they come first.
        rows: int64 [pairs], which of them are pairs.
        pairs: int64 [pairs, 2], their texts. Those come behind the joint ones, each of them once,
            and are counted from there.
    """

    num_texts: int
    joint: NDArray[np.int64]
    rows: NDArray[np.int64]
    pairs: NDArray[np.int64]

    def count(self, of_encoded: NDArray[np.bool_]) -> int:
        """Of how many texts of the call something holds, of them or of one of their two.

        Args:
            of_encoded: bool, whether it holds, of each text that is encoded.
        """
        found = np.zeros(self.num_texts, np.bool_)
        found[self.joint] = of_encoded[: len(self.joint)]
        found[self.rows] |= of_encoded[len(self.joint) :][self.pairs].any(axis=1)
        return int(found.sum())


def take_apart(
    texts: Sequence[Text], heads: Sequence[HasForm], all_joint: bool = False
) -> tuple[PairsApart, list[Text]]:
    """What is to be encoded for some heads, and where each text of the call is in that.

    Args:
        all_joint: encode all texts as they are, too, not only those that a head reads so.

    Raises InputError for what is no sequence of texts.
    """
    check_texts(texts)
    texts = [*texts]
    is_pair = are_pairs(texts)
    is_joint = np.full(len(texts), all_joint)
    for head in heads:
        if not reads_apart(head):
            is_joint |= fit(head, is_pair)
    joint, rows = np.flatnonzero(is_joint), np.flatnonzero(is_pair)
    places: dict[str, int] = {}
    found = [places.setdefault(text, len(places)) for row in rows.tolist() for text in texts[row]]
    pairs = np.array(found, np.int64).reshape(-1, 2)
    placed = PairsApart(len(texts), joint, rows, pairs)
    return placed, [*(texts[row] for row in joint.tolist()), *places]
