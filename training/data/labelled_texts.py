"""Labelled texts of every kind, from files and from memory.

The columns are `text`, or `text_a` and `text_b`; and `label`, `labels`, `score` or `spans`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.kinds.ordinal import number_of
from bitheads.engine.texts.tables import QUOTES_OPTION
from bitheads.engine.types import Text
from bitheads.training.data.columns import check_kind, choose_labelled
from bitheads.training.data.in_memory import rows_in_memory
from bitheads.training.data.labels import Labels, labels_of, shorten
from bitheads.training.data.rows import Rows, read_rows
from bitheads.training.data.spans import LabelledSpan

Classes = tuple[str, ...]


@dataclass(frozen=True)
class LabelledTexts:
    """One file, or rows in memory.

    Attributes:
        path: of the file; of rows in memory, the name that they were given.
        texts: strings, or pairs of strings.
        labels: one per text: a string, for `multi_label` a tuple of different ones, for
            `regression` a finite number, for `token_label` a tuple of LabelledSpan, in order.
        lines: the line of the file, from 1, in which each text's row begins; in Parquet and in
            memory the number of the row, from 0.
        form: "single" or "pair".
        kind: "single_label", "multi_label", "ordinal", "regression" or "token_label".
        sha256: of the file's bytes; of rows in memory, of their texts and labels.
        unit: what `lines` counts, "line" or "row".
        columns: those that were read, texts first; none of rows without columns.
        other_columns: those that were there and not read.
    """

    path: Path
    texts: list[Text]
    labels: Labels
    lines: list[int]
    form: str
    kind: str
    sha256: str
    unit: str = "line"
    columns: tuple[str, ...] = ()
    other_columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, row: int) -> str:
        """What to call a text in errors: the file and its line."""
        return f"{self.path}, {self.unit} {self.lines[row]}"

    def label_ids(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Index of each label in `classes`, int64 [texts]; of `single_label` and `ordinal`.

        Raises InputError, with the line, for others.
        """
        self._check_kind("single_label", "ordinal")
        index = {label: i for i, label in enumerate(classes)}
        for row, label in enumerate(self.labels):
            if label not in index:
                raise self._unknown(row, label, classes)
        return np.array([index[str(label)] for label in self.labels], np.int64)

    def label_sets(self, classes: Sequence[str]) -> NDArray[np.bool_]:
        """Which of `classes` each text has, bool [texts, classes]; of `multi_label`.

        Raises InputError, with the line, for other labels.
        """
        self._check_kind("multi_label")
        index = {label: i for i, label in enumerate(classes)}
        found = np.zeros((len(self), len(classes)), np.bool_)
        for row, labels in enumerate(self.labels):
            assert isinstance(labels, tuple), "of this kind all are"
            for label in labels:
                if label not in index:
                    raise self._unknown(row, label, classes)
                found[row, index[label]] = True
        return found

    def scores(self) -> NDArray[np.float32]:
        """float32 [texts]; of `regression`."""
        self._check_kind("regression")
        return np.array(self.labels, np.float32)

    def spans(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Row, start, end and index in `classes` of each span, int64 [spans, 4], in order; of
        `token_label`.

        Raises InputError, with the line, for other labels.
        """
        self._check_kind("token_label")
        index = {label: i for i, label in enumerate(classes)}
        found = []
        for row, start, end, label in self._all_spans():
            if label not in index:
                raise self._unknown(row, label, classes)
            found.append((row, start, end, index[label]))
        return np.array(found, np.int64).reshape(-1, 4)

    def _all_spans(self) -> Iterator[tuple[int, int, int, str]]:
        for row, spans in enumerate(self.labels):
            assert isinstance(spans, tuple), "of this kind all are"
            for span in spans:
                assert isinstance(span, LabelledSpan), "of this kind all are"
                yield row, *span

    def _check_kind(self, *kinds: str) -> None:
        """Raises TypeError: which of the four to ask for is for the caller to know."""
        if self.kind not in kinds:
            raise TypeError(f"labels of the kind {self.kind} are no {' or '.join(kinds)} labels")

    def _unknown(self, row: int, label: object, classes: Sequence[str]) -> InputError:
        return InputError(
            f"{self.place(row)}: label {label!r} is not among the training labels "
            f"{shorten(classes)}. Correct it, or add examples of it to the training file."
        )


def read_labelled(
    path: Path, quotes: str | None = None, option: str = QUOTES_OPTION, kind: str | None = None
) -> LabelledTexts:
    """Reads JSON lines (.jsonl, .ndjson, .json), Parquet (.parquet, .pq), CSV (.csv), else TSV.

    Args:
        quotes: "csv" or "none", how those of TSV and CSV are read, see `engine.texts.tables`. None:
            CSV is RFC 4180, and TSV that looks quoted is an error.
        option: how a user says `quotes`, for that error, with {} for the value.
        kind: what is to be learnt; None: the columns say it. `ordinal` must be said.

    Raises InputError, with the line, for anything malformed.
    """
    check_kind(kind)
    return _labelled(read_rows(path, partial(choose_labelled, kind=kind), quotes, option))


def labelled_from(rows: Any, kind: str | None = None, name: str = "rows") -> LabelledTexts:
    """Labelled texts that are in memory.

    Args:
        rows: with the columns of a file: a list of dicts, a pandas or polars DataFrame, a pyarrow
            Table, a Dataset of Hugging Face, whose numbered classes get their names. Or a list of
            (text, label), for pairs ((text_a, text_b), label), where a list of labels says
            `multi_label`, one of objects `token_label`, and a float `regression`.
        kind: None for what the columns, or labels, say. `ordinal` must be said.
        name: what to call the rows in errors.

    Raises InputError, with the number of the row, from 0, for anything malformed.
    """
    check_kind(kind)
    return _labelled(rows_in_memory(rows, kind, name))


def _labelled(rows: Rows) -> LabelledTexts:
    columns = rows.columns
    assert columns.kind is not None, "there is a column of labels"
    texts = rows.texts()
    labels = labels_of(rows, texts)
    others = tuple(name for name in rows.names if name not in columns.names)
    return LabelledTexts(
        rows.path,
        texts,
        labels,
        list(rows.numbers),
        columns.form,
        columns.kind,
        rows.sha256 or _sha256(texts, labels),
        rows.unit,
        columns.names if rows.names else (),
        others,
    )


def _sha256(texts: Sequence[Text], labels: Labels) -> str:
    digest = hashlib.sha256()
    for row in zip(texts, labels, strict=True):
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def classes_of(train: LabelledTexts, order: Sequence[str] | None = None) -> Classes:
    """The training labels: sorted, or for `ordinal` from the lowest to the highest.

    Args:
        order: of ordinal labels that are not all numbers, from the lowest to the highest.

    Raises InputError if there are too few labels, and for an order that is not known or not theirs.
    """
    found: set[str]
    if train.kind == "multi_label":
        found = {
            str(label) for labels in train.labels if isinstance(labels, tuple) for label in labels
        }
    elif train.kind == "token_label":
        found = {label for *_, label in train._all_spans()}
    else:
        train._check_kind("single_label", "ordinal")
        found = {str(label) for label in train.labels}
    classes = tuple(sorted(found))
    if not classes:
        what = "span" if train.kind == "token_label" else "label"
        raise InputError(f"{train.path}: no row has a {what}, expected some. Add examples that do.")
    if len(classes) < 2 and train.kind not in ("multi_label", "token_label"):
        raise InputError(
            f"{train.path}: every row has the label {classes[0]!r}, expected at least two labels. "
            "Add examples of another."
        )
    if train.kind == "ordinal":
        return _ordered(train, classes, order)
    if order is not None:
        raise InputError(
            f"{train.path}: got an order for {train.kind} labels, expected one for ordinal labels "
            "alone. Leave it out."
        )
    return classes


def range_of(train: LabelledTexts) -> tuple[float, float]:
    """The least and the largest training score, as float32; of `regression`.

    Raises InputError if they are the same.
    """
    scores = train.scores()
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        raise InputError(
            f"{train.path}: every row has the score {low:g}, expected at least two scores. Add "
            "examples of another."
        )
    return low, high


def _ordered(train: LabelledTexts, classes: Classes, order: Sequence[str] | None) -> Classes:
    if order is not None:
        if sorted(order) != list(classes):
            raise InputError(
                f"{train.path}: got the order {shorten(list(order))}, expected each of the labels "
                f"{shorten(classes)} once. Correct it, or add examples."
            )
        return tuple(order)
    numbers = {label: number_of(label) for label in classes}
    known = {label: number for label, number in numbers.items() if number is not None}
    if len(known) < len(classes):
        raise InputError(
            f"{train.path}: the order of the labels {shorten(classes)} is not known, as they are "
            "not all numbers. Say it, from the lowest to the highest."
        )
    ordered = sorted(known, key=lambda label: known[label])
    for low, high in pairwise(ordered):
        if known[low] == known[high]:
            raise InputError(
                f"{train.path}: the labels {low!r} and {high!r} are the same number, expected "
                "different ones. Write them alike."
            )
    return tuple(ordered)
