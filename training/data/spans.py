"""What is in a column of spans: parts of a text that are whole words, each with a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from bitheads.engine.errors import InputError
from bitheads.engine.features.words import find_words
from bitheads.engine.texts.text_files import is_text
from bitheads.training.data.rows import Rows

KEYS = ("start", "end", "label")


class LabelledSpan(NamedTuple):
    """text[start:end], in code points."""

    start: int
    end: int
    label: str


Spans = tuple[LabelledSpan, ...]


def spans_of(rows: Rows, texts: Sequence[Any]) -> list[Spans]:
    """Those of each row, from the first to the last.

    Raises InputError, with the place, for what is no span, for spans that are not of whole words,
    and for those that have words in common.
    """
    if rows.is_delimited:
        raise InputError(
            f"{rows.path}: has a column spans, expected JSON lines or Parquet for spans. Convert "
            "the file."
        )
    if rows.columns.form == "pair":
        raise InputError(
            f"{rows.path}: got spans of pairs of texts, expected them of single texts, in a column "
            "text. Join each pair, or leave one of the two out."
        )
    names = rows.class_names.get(rows.columns.label or "")
    found = []
    for row, (text, value) in enumerate(zip(texts, rows.labels(), strict=True)):
        place = rows.place(row)
        spans = sorted(_span(place, text, item, names) for item in _items(place, value))
        _check_words(place, text, spans)
        found.append(tuple(spans))
    return found


def _items(place: str, value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping) and all(key in value for key in KEYS):
        # A Sequence of objects in Hugging Face datasets: an object of lists.
        lists = [value[key] for key in KEYS]
        if all(isinstance(items, list) and len(items) == len(lists[0]) for items in lists):
            value = [dict(zip(KEYS, item, strict=True)) for item in zip(*lists, strict=True)]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise InputError(
            f"{place}: got the spans {value!r:.60}, expected a list of objects with start, end "
            "and label, [] for none. Correct it, or leave the row out."
        )
    for item in value:
        if not isinstance(item, Mapping) or any(key not in item for key in KEYS):
            raise InputError(
                f"{place}: got the span {item!r:.100}, expected an object with start, end and "
                "label. Correct it, or leave it out."
            )
        yield item


def _span(
    place: str, text: str, item: Mapping[str, Any], names: Sequence[str] | None
) -> LabelledSpan:
    start, end, label = (item[key] for key in KEYS)
    for offset in (start, end):
        if not isinstance(offset, Integral) or isinstance(offset, bool):
            raise InputError(
                f"{place}: got the span {start!r:.30} to {end!r:.30}, expected whole numbers, of "
                "the first character and of the one behind the last. Correct it."
            )
    start, end = int(start), int(end)
    if not 0 <= start < end <= len(text):
        raise InputError(
            f"{place}: got the span {start} to {end}, expected a start from 0 on, an end behind "
            f"it, and at most {len(text)}, the characters of the text. Count characters, not bytes."
        )
    if names is not None and isinstance(label, Integral) and 0 <= int(label) < len(names):
        label = names[int(label)]
    if not is_text(label) or not label:
        raise InputError(
            f"{place}: got the label {label!r:.60} of the span {start} to {end}, expected a text. "
            "Correct it."
        )
    return LabelledSpan(start, end, str(label))


def _check_words(place: str, text: str, spans: Sequence[LabelledSpan]) -> None:
    if not spans:
        return
    words = find_words(text)
    before: LabelledSpan | None = None
    for span in spans:
        inside = words[(words[:, 1] > span.start) & (words[:, 0] < span.end)]
        start, end = (int(inside[0, 0]), int(inside[-1, 1])) if len(inside) else (-1, -1)
        if (start, end) != (span.start, span.end):
            fix = f"{text[start:end]!r:.60}, {start} to {end}" if len(inside) else "words"
            raise InputError(
                f"{place}: got the span {span.start} to {span.end}, "
                f"{text[span.start : span.end]!r:.60}, expected whole words without the blanks "
                f"around them, {fix}. Correct it, or leave it out."
            )
        if before is not None and span.start < before.end:
            raise InputError(
                f"{place}: got the spans {before.start} to {before.end} and {span.start} to "
                f"{span.end}, expected spans that have nothing in common. Leave one out."
            )
        before = span
