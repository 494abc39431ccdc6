"""What is in a column of labels, as the kind of a head reads it; each fault with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np

from bitheads.engine.errors import InputError
from bitheads.engine.texts.text_files import is_text
from bitheads.engine.types import Text
from bitheads.training.data.rows import Rows
from bitheads.training.data.spans import Spans, spans_of

SEPARATOR = "|"
"""Between the labels of a set in TSV and CSV."""

MAX_SCORE = 3e38
"""Larger ones would be infinite as float32."""

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""What a number in TSV and CSV may look like; float() would take `1_000`, too."""

Labels = list[str] | list[tuple[str, ...]] | list[float] | list[Spans]


def labels_of(rows: Rows, texts: Sequence[Text]) -> Labels:
    """One per row: a text, a tuple of texts, for regression a number, for token_label spans.

    Raises InputError, with the place, for anything that is none.
    """
    kind = rows.columns.kind
    if kind == "regression":
        return [_score(rows, row, value) for row, value in enumerate(rows.labels())]
    if kind == "token_label":
        return spans_of(rows, texts)
    read = _Texts(rows, has_fractions=kind == "ordinal")
    if kind == "multi_label":
        return [read.set_of(row, value) for row, value in enumerate(rows.labels())]
    return [read.label(row, value) for row, value in enumerate(rows.labels())]


class _Texts:
    """Labels as texts: numbers are written out, and all are of the type of the first one.

    Args:
        has_fractions: whether a label may be any number; else such a number is likely a score.
    """

    def __init__(self, rows: Rows, has_fractions: bool) -> None:
        self._rows = rows
        self._has_fractions = has_fractions
        self._names = rows.class_names.get(rows.columns.label or "")
        self._first: tuple[str, str] | None = None  # its type and place

    def label(self, row: int, value: Any) -> str:
        place = self._rows.place(row)
        found = self._named(place, value)
        if found is None:
            expected = "a text or a number" if self._has_fractions else "a text or a whole number"
            raise InputError(
                f"{place}: got the label {value!r:.60}, expected {expected}. Correct it, or leave "
                "the row out; numbers that are to be answered as numbers go into a column score."
            )
        label, its_type = found
        if self._first is None:
            self._first = its_type, place
        if its_type != self._first[0]:
            raise InputError(
                f"{place}: got the label {value!r:.60}, {its_type}, expected {self._first[0]} as "
                f"in {self._first[1]}. Write all labels alike."
            )
        if not label:
            raise InputError(f"{place}: the label is empty. Fill it in.")
        return label

    def set_of(self, row: int, value: Any) -> tuple[str, ...]:
        place = self._rows.place(row)
        if self._rows.is_delimited:
            items = value.split(SEPARATOR) if value else []
            if "" in items:
                raise InputError(
                    f"{place}: a label of {value!r:.60} is empty, expected labels with "
                    f"{SEPARATOR!r} between them. Remove a {SEPARATOR!r}; labels that have one in "
                    "them need JSON lines or Parquet."
                )
        else:
            items = list(self._items(place, value))
        labels = tuple(self.label(row, item) for item in items)
        if len(set(labels)) < len(labels):
            twice = next(label for i, label in enumerate(labels) if label in labels[:i])
            raise InputError(f"{place}: the label {twice!r} comes twice. Remove one.")
        return labels

    def _items(self, place: str, value: Any) -> Iterator[Any]:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, set | frozenset):
            value = sorted(value, key=str)
        if not isinstance(value, list | tuple):
            raise InputError(
                f"{place}: got the labels {value!r:.60}, expected a list of labels, [] for none. "
                f"Split texts first, such as by .split({SEPARATOR!r})."
            )
        yield from value

    def _named(self, place: str, value: Any) -> tuple[str, str] | None:
        """The label and what it was, None for what is no label."""
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if is_whole and self._names is not None:
            if not 0 <= value < len(self._names):
                raise InputError(
                    f"{place}: got the label {value}, expected 0 to {len(self._names) - 1}, as the "
                    f"dataset has {len(self._names)} names of labels. Leave rows without a label "
                    "out."
                )
            return self._names[value], "a text"
        if is_whole:
            return str(int(value)), "a number"
        if isinstance(value, bool | np.bool_):
            return str(value).lower(), "true or false"
        if self._has_fractions and (number := _finite(value)) is not None:
            return repr(number).removesuffix(".0"), "a number"
        return (str(value), "a text") if is_text(value) else None


def _score(rows: Rows, row: int, value: Any) -> float:
    number = _finite(value) if not rows.is_delimited else None
    if rows.is_delimited and NUMBER.fullmatch(value):
        number = _finite(float(value))
    if number is None:
        raise InputError(
            f"{rows.place(row)}: got the score {value!r:.60}, expected a finite number, with a "
            "point if it has decimals. Correct it, or leave the row out."
        )
    return number


def _finite(value: Any) -> float | None:
    """A number of any library as a float, None for all else and for what no float32 holds."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if isfinite(number) and abs(number) <= MAX_SCORE else None


def shorten(labels: Sequence[str]) -> str:
    """The first ten of them, and how many there are."""
    shown = ", ".join(labels[:10])
    return f"({shown}, ... {len(labels)} in all)" if len(labels) > 10 else f"({shown})"
