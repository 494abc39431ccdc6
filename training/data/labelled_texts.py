"""Labelled texts from tables: the columns `label` and `text`, or `label`, `text_a` and `text_b`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.texts.tables import QUOTES_OPTION, read_table
from bitheads.engine.types import Text

HEADERS = {("label", "text"): "single", ("label", "text_a", "text_b"): "pair"}


@dataclass(frozen=True)
class LabelledTexts:
    """One TSV or CSV file.

    Attributes:
        texts: strings, or pairs of strings.
        labels: one per text.
        lines: the line of the file, from 1, in which each text's row begins.
        form: "single" or "pair".
        sha256: of the file's bytes.
    """

    path: Path
    texts: list[Text]
    labels: list[str]
    lines: list[int]
    form: str
    sha256: str

    def __len__(self) -> int:
        return len(self.texts)

    def label_ids(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Index of each label in `classes`. Raises InputError, with the line, for others."""
        index = {label: i for i, label in enumerate(classes)}
        for line, label in zip(self.lines, self.labels, strict=True):
            if label not in index:
                raise InputError(
                    f"{self.path}, line {line}: label {label!r} is not among the training "
                    f"labels {_shorten(classes)}. Correct it, or add examples of it to the "
                    "training file."
                )
        return np.array([index[label] for label in self.labels], np.int64)


def read_labelled(
    path: Path, quotes: str | None = None, option: str = QUOTES_OPTION
) -> LabelledTexts:
    """Reads a UTF-8 file with a header: CSV if its suffix is .csv, else TSV.

    Args:
        quotes: "csv" or "none", how they are read, see `engine.texts.tables`. None: CSV is RFC
            4180, and TSV that looks quoted is an error.
        option: how a user says `quotes`, for that error, with {} for the value.

    Raises InputError, with the line number, for anything malformed.
    """

    def check(header: tuple[str, ...]) -> None:
        if header not in HEADERS:
            raise InputError(
                f"{path}, line 1: got the header {list(header)}, expected label<TAB>text or "
                "label<TAB>text_a<TAB>text_b, in CSV with commas. Add it as the first line."
            )

    table = read_table(path, quotes, option, "a file with the columns label and text", check)
    texts: list[Text] = []
    for line, (label, *parts) in table.rows:
        if not label:
            raise InputError(f"{path}, line {line}: the label is empty. Fill it in.")
        texts.append(parts[0] if len(parts) == 1 else (parts[0], parts[1]))
    if not texts:
        raise InputError(f"{path}: no rows below the header. Add examples.")
    lines, labels = [row.line for row in table.rows], [row.cells[0] for row in table.rows]
    return LabelledTexts(path, texts, labels, lines, HEADERS[table.header], table.sha256)


def classes_of(train: LabelledTexts) -> tuple[str, ...]:
    """The training labels, sorted. Raises InputError if there is only one."""
    classes = tuple(sorted(set(train.labels)))
    if len(classes) < 2:
        raise InputError(
            f"{train.path}: every row has the label {classes[0]!r}, expected at least two labels. "
            "Add examples of another."
        )
    return classes


def _shorten(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:10])
    return f"({shown}, ... {len(classes)} in all)" if len(classes) > 10 else f"({shown})"
