"""Labelled texts from TSV files: `label<TAB>text`, or `label<TAB>text_a<TAB>text_b` for pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.types import Text

HEADERS = {("label", "text"): "single", ("label", "text_a", "text_b"): "pair"}


@dataclass(frozen=True)
class LabelledTexts:
    """One TSV file.

    Attributes:
        texts: strings, or pairs of strings.
        labels: one a text.
        form: "single" or "pair".
        sha256: of the file's bytes.
    """

    path: Path
    texts: list[Text]
    labels: list[str]
    form: str
    sha256: str

    def __len__(self) -> int:
        return len(self.texts)

    def label_ids(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Index of each label in `classes`. Raises InputError, with the line, for others."""
        index = {label: i for i, label in enumerate(classes)}
        for row, label in enumerate(self.labels):
            if label not in index:
                raise InputError(
                    f"{self.path}, line {row + 2}: label {label!r} is not among the training "
                    f"labels {_shorten(classes)}. Correct it, or add examples of it to the "
                    "training file."
                )
        return np.array([index[label] for label in self.labels], np.int64)


def read_tsv(path: Path) -> LabelledTexts:
    """Reads a UTF-8 file with a header; quotes are ordinary characters.

    Raises InputError, with the line number, for anything malformed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Name a TSV file with the header "
            "label<TAB>text or label<TAB>text_a<TAB>text_b."
        ) from error
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 ({error}). Convert the file.") from error
    lines = content.split("\n")
    if lines[-1] == "":
        lines.pop()
    header = tuple(lines[0].rstrip("\r").split("\t")) if lines else ()
    if header not in HEADERS:
        raise InputError(
            f"{path}, line 1: got the header {list(header)}, expected label<TAB>text or "
            "label<TAB>text_a<TAB>text_b. Add it as the first line."
        )
    texts: list[Text] = []
    labels = []
    for number, row in enumerate(lines[1:], start=2):
        columns = row.rstrip("\r").split("\t")
        if len(columns) != len(header):
            raise InputError(
                f"{path}, line {number}: got {len(columns)} columns, expected {len(header)} "
                f"({', '.join(header)}). Replace tabs inside texts by spaces."
            )
        if not columns[0]:
            raise InputError(f"{path}, line {number}: the label is empty. Fill it in.")
        labels.append(columns[0])
        texts.append(columns[1] if len(header) == 2 else (columns[1], columns[2]))
    if not texts:
        raise InputError(f"{path}: no rows below the header. Add examples.")
    return LabelledTexts(path, texts, labels, HEADERS[header], hashlib.sha256(data).hexdigest())


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
