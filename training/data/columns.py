"""Which columns of a table are read, and the kind of answer that they are labels for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitheads.engine.errors import InputError

TEXT, PAIR = ("text",), ("text_a", "text_b")

COLUMN_OF = {
    "single_label": "label",
    "multi_label": "labels",
    "ordinal": "label",
    "regression": "score",
    "token_label": "spans",
}
"""Kind -> its column of labels. Of a column, the first kind is the one that it says by itself."""

Names = tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Attributes:
        texts: one, or two for pairs.
        label: None where texts alone are wanted.
        kind: what the label is read as; None without one.
    """

    texts: Names
    label: str | None = None
    kind: str | None = None

    @property
    def names(self) -> Names:
        """Those of the texts, then the label's."""
        return self.texts if self.label is None else (*self.texts, self.label)

    @property
    def form(self) -> str:
        """ "single" or "pair"."""
        return "single" if len(self.texts) == 1 else "pair"


Choose = Callable[[str, Names], Columns]
"""(what to call the header in errors, the columns that there are) -> those that are read."""


def choose_texts(place: str, names: Names) -> Columns:
    """The column `text`, or else `text_a` and `text_b`. Raises InputError if there are neither."""
    texts = PAIR if "text" not in names and set(PAIR) <= set(names) else TEXT
    _check(place, names, texts, "text, or text_a and text_b,")
    return Columns(texts)


def choose_labelled(place: str, names: Names, kind: str | None = None) -> Columns:
    """The columns of texts and of labels.

    Args:
        kind: None for what the columns say: `label`, `labels`, `score` or `spans`.

    Raises InputError for columns that are missing or there twice, and if more than one kind fits.
    """
    texts = choose_texts(place, names).texts
    if kind is None:
        column = _only_label(place, names)
        kind = next(kind for kind, own in COLUMN_OF.items() if own == column)
    _check(place, names, (COLUMN_OF[kind],), f"{COLUMN_OF[kind]}, which a {kind} head learns,")
    return Columns(texts, COLUMN_OF[kind], kind)


def check_kind(kind: str | None) -> None:
    """Raises InputError for what is no kind of labels."""
    if kind is not None and kind not in COLUMN_OF:
        raise InputError(f"kind: got {kind!r}, expected one of {list(COLUMN_OF)}.")


def _only_label(place: str, names: Names) -> str:
    known = tuple(dict.fromkeys(COLUMN_OF.values()))
    found = [name for name in known if name in names]
    if not found:
        raise _missing(place, names, "label, labels, score or spans")
    if len(found) > 1:
        raise InputError(
            f"{place}: got the columns {' and '.join(found)}, expected one of {', '.join(known)}. "
            f"Name the kind of head that is wanted, of {', '.join(COLUMN_OF)}, or rename the other."
        )
    return found[0]


def _check(place: str, names: Names, wanted: Sequence[str], expected: str) -> None:
    for name in wanted:
        if name not in names:
            raise _missing(place, names, expected)
        if names.count(name) > 1:
            raise InputError(
                f"{place}: got more than one column {name!r}, expected one. Rename the others."
            )


def _missing(place: str, names: Names, expected: str) -> InputError:
    shown = f"{list(names)}"
    return InputError(
        f"{place}: got the columns {shown if len(shown) <= 300 else f'{shown[:299]}…'}, expected "
        f"{expected} among them. Rename yours; in TSV and CSV the first line has the names."
    )
