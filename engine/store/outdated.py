"""Rows that a later part has anew: which of which parts, without those being written again.

Replacing a few rows here and there would write nearly every part again. So the new rows become a
small part of their own, whose footer says which rows of which parts are outdated: by a part's
seal, so that of a part that was written again since, without them, nothing is meant. From the
moment the small part is there, its rows are the store's and those are not, all in one step.
`compact` writes everything together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTDATES = "outdates"
"""Its name among a part's facts."""

DROPPED = "dropped"
"""The same of how many outdated rows of the parts that it replaces it left out."""


class OutdatedRows(NamedTuple):
    """Some rows of one part.

    Attributes:
        rows: their numbers in the part, ascending.
        tokens: of all of them.
    """

    rows: tuple[int, ...]
    tokens: int


Outdates = Mapping[str, OutdatedRows]
"""By the seal of the part that has them."""

NONE = OutdatedRows((), 0)


def to_fact(outdates: Outdates) -> dict[str, Any]:
    """As JSON, in a part's footer."""
    return {seal: {"rows": [*one.rows], "tokens": one.tokens} for seal, one in outdates.items()}


def of_fact(fact: Any) -> Outdates:
    """What a part's footer says. Raises ValueError for what no writer writes."""
    if fact is None:
        return {}
    if not isinstance(fact, dict):
        raise ValueError("it is no object")
    found = {}
    for seal, said in fact.items():
        if not isinstance(said, dict) or not {"rows", "tokens"} <= said.keys():
            raise ValueError("rows and tokens are not said")
        rows, tokens = said["rows"], said["tokens"]
        if (
            type(tokens) is not int
            or not isinstance(rows, list)
            or any(type(row) is not int for row in rows)
        ):
            raise ValueError("rows and tokens are no whole numbers")
        if any(a >= b for a, b in zip([-1, *rows], rows, strict=False)):
            raise ValueError("rows are not in order")
        found[seal] = OutdatedRows(tuple(rows), tokens)
    return found


def of_rows(rows: Iterable[int], tokens: int) -> OutdatedRows:
    """In order."""
    return OutdatedRows(tuple(sorted(map(int, rows))), int(tokens))


def joined(all_of_them: Iterable[Outdates], seals: Iterable[str]) -> Outdates:
    """What several parts say together, of the parts with these seals alone."""
    there, found = set(seals), dict[str, OutdatedRows]()
    for outdates in all_of_them:
        for seal, said in outdates.items():
            if seal in there and said.rows:
                before = found.get(seal, NONE)
                # A row is outdated once: what has it anew is outdated the next time.
                rows = sorted({*before.rows, *said.rows})
                found[seal] = OutdatedRows(tuple(rows), before.tokens + said.tokens)
    return found


def left_of(outdated: NDArray[np.int64], start: int, rows: int) -> NDArray[np.bool_] | None:
    """Which rows are not outdated, bool [rows]; None where all are as they should be.

    Args:
        outdated: int64 [outdated rows], ascending.
        start: number of the first of the rows.
    """
    first, last = np.searchsorted(outdated, [start, start + rows])
    if first == last:
        return None
    left = np.ones(rows, np.bool_)
    left[outdated[first:last] - start] = False
    return left
