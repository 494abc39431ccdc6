"""What ids count that are numbers of rows: the rows of which files.

Where an input has no ids, a text's is the number of its row, all files before it counted. It is the
same text's when the command runs again only if the files before it are the same, in the same
order. So a part whose ids are such numbers says of which files, and a run whose files are others is
refused: it would pass over texts as stored whose numbers were other texts'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bitheads.engine.errors import InputError

NUMBERING = "numbering"
"""Its name among a part's facts."""


class Numbering(NamedTuple):
    """The files whose rows are counted.

    Attributes:
        files: number of them.
        digest: of their names and sizes, in order.
    """

    files: int
    digest: str


def of_digests(digests: Sequence[str]) -> Numbering:
    """That of files of which each has a digest of itself and all before it."""
    return Numbering(len(digests), digests[-1])


def is_numbering(fact: Any) -> bool:
    """Whether it is what a part may say of it, which may be nothing."""
    if not isinstance(fact, dict):
        return fact is None
    files, digest = fact.get("files"), fact.get("digest")
    return len(fact) == 2 and type(files) is int and files > 0 and isinstance(digest, str)


def longest(found: Iterable[Numbering | None]) -> Numbering | None:
    """Of parts that are merged: that of the most files, of which the others' are the first."""
    return max(filter(None, found), key=lambda one: one.files, default=None)


def check_numbering(stored: Iterable[Numbering | None], digests: Sequence[str], shown: str) -> None:
    """Raises InputError unless the stored rows' files are the input's first.

    Args:
        digests: of the input's files, see `of_digests`.
        shown: the store's name.
    """
    for one in stored:
        if one is None or digests[one.files - 1 : one.files] == (one.digest,):
            continue
        raise InputError(
            f"--input: its {len(digests)} files do not begin with the {one.files} whose rows are "
            f"stored in {shown} by their numbers: a file was added between them, removed, renamed "
            "or changed, so numbers would mean other texts. Expected the same files in the same "
            "order, and new ones behind them. Name the files so, say --id-column, or encode into "
            "another store."
        )
