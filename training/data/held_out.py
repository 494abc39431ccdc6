"""Parts of labelled texts: some rows, and those that are held out of the training set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.training.data.labelled_texts import LabelledTexts

HELD_OUT = 5
"""One in so many training texts is held out."""


def with_dev(learned: Mapping[str, LabelledTexts]) -> dict[str, LabelledTexts]:
    """What is learned from with a "dev": where there is none, a part of the training set."""
    if "dev" in learned:
        return dict(learned)
    train = learned["train"]
    order = covering_order(train)
    first = len(order) - max(1, len(order) // HELD_OUT)
    parts = {"train": order[:first], "dev": order[first:]}
    return {**learned, **{name: rows_of(train, np.sort(rows)) for name, rows in parts.items()}}


def covering_order(data: LabelledTexts) -> NDArray[np.int64]:
    """The rows in random order, but first some that have all labels between them."""
    random = np.random.default_rng(0)
    order = random.permutation(len(data))
    seen: set[object] = set()
    first: list[int] = []
    rest: list[int] = []
    for row in order.tolist():
        labels = labels_of_row(data, row)
        (rest if labels <= seen else first).append(row)
        seen |= labels
    return np.array(first + rest, np.int64)


def rows_of(data: LabelledTexts, rows: NDArray[np.int64]) -> LabelledTexts:
    """Some of the rows."""
    labels: Any = [data.labels[row] for row in rows]
    return replace(
        data,
        texts=[data.texts[row] for row in rows],
        labels=labels,
        lines=[data.lines[row] for row in rows],
        sha256=hashlib.sha256(f"{data.sha256} {rows.tolist()}".encode()).hexdigest(),
    )


def labels_of_row(data: LabelledTexts, row: int) -> set[object]:
    """The different labels of a row; none of a score."""
    label: Any = data.labels[row]
    if data.kind == "regression":
        return set()
    if data.kind == "token_label":
        return {span.label for span in label}
    return set(label) if data.kind == "multi_label" else {label}
