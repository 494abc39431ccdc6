"""A folder of tasks: `train.tsv` and `dev.tsv` per task, and `index.tsv` with their types.

Each file may be CSV instead, as `train.csv`, and those of a task JSON lines or Parquet. Tasks are
of the kind `single_label`: what reads a task refuses others by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.heads.head_file import check_task_name
from bitheads.engine.kinds import SINGLE_LABEL
from bitheads.engine.texts.tables import QUOTES, read_table
from bitheads.engine.types import Text
from bitheads.training.data.batches import seed_of
from bitheads.training.data.labelled_texts import LabelledTexts, classes_of, read_labelled
from bitheads.training.data.rows import FORMATS
from bitheads.training.errors import require

INDEX = "index"
TABLES = (".tsv", ".csv")
SUFFIXES = (*TABLES, *(suffix for suffix in FORMATS if suffix not in TABLES))

Quotes = Mapping[str, str] | None
"""Task -> how the quotes in its files are read, see `engine.texts.tables`."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The rows of one file that are used.

    Attributes:
        label_ids: int64 [texts], indices of the task's classes.
        file_rows: how many rows the file has.
        sha256: of the file's bytes.
    """

    texts: list[Text]
    label_ids: NDArray[np.int64]
    file_rows: int
    sha256: str

    def __len__(self) -> int:
        return len(self.texts)

    def to_json(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "file_rows": self.file_rows, "rows": len(self)}


@dataclass(frozen=True, eq=False)
class Task:
    """One task.

    Attributes:
        type: such as "NLI", from the index; None without an index.
        form: "single" or "pair".
        classes: the labels of the whole training file, sorted.
        quotes: how quotes in the files were read; None if that was not said.
    """

    name: str
    type: str | None
    form: str
    classes: tuple[str, ...]
    train: Examples
    dev: Examples
    quotes: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What tells whether two runs were trained on the same data."""
        said = {} if self.quotes is None else {"quotes": self.quotes}
        return {
            **said,
            "type": self.type,
            "form": self.form,
            "classes": list(self.classes),
            "train": self.train.to_json(),
            "dev": self.dev.to_json(),
        }


def read_task(
    folder: Path,
    kind: str | None = None,
    max_train_rows: int | None = None,
    max_dev_rows: int | None = None,
    seed: int = 0,
    quotes: Quotes = None,
) -> Task:
    """Reads the training and dev files of one task; its name is the folder's.

    Args:
        kind: the task's type.
        max_train_rows, max_dev_rows: rows that are used, drawn at random; a larger limit adds rows
            to those of a smaller one.
        quotes: of this task, and maybe of others.

    Raises InputError, with file and line, for what is malformed, for a training file of one class,
    for dev labels that the training file does not have, and for labels of another kind.
    """
    check_task_name(folder.name)
    train, dev = (_read(folder, part, quotes) for part in ("train", "dev"))
    if train.form != dev.form:
        raise InputError(
            f"{dev.path}: got texts of the form {dev.form!r}, expected {train.form!r} as in "
            f"{train.path}. Give both files the same columns."
        )
    classes = classes_of(train)
    return Task(
        folder.name,
        kind,
        train.form,
        classes,
        _some(train, folder.name, classes, max_train_rows, seed),
        _some(dev, folder.name, classes, max_dev_rows, seed),
        (quotes or {}).get(folder.name),
    )


def read_test(folder: Path, task: Task, max_rows: int | None = None, seed: int = 0) -> Examples:
    """The rows of the test file, with the task's classes.

    Raises InputError, with file and line, for anything malformed, and for labels and columns that
    the training file does not have.
    """
    said = None if task.quotes is None else {task.name: task.quotes}
    data = _read(folder, "test", said)
    if data.form != task.form:
        raise InputError(
            f"{data.path}: got texts of the form {data.form!r}, expected {task.form!r} as in "
            "the training file. Give both files the same columns."
        )
    return _some(data, task.name, task.classes, max_rows, seed)


def file_of(folder: Path, part: str, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """`part`.tsv of a folder, or .csv, .jsonl and so on; the first if there is none of them.

    Raises InputError if there are two.
    """
    found = [path for suffix in suffixes if (path := folder / f"{part}{suffix}").is_file()]
    if len(found) > 1:
        raise InputError(
            f"{folder}: has both {found[0].name} and {found[1].name}, expected one. Remove the "
            "other."
        )
    return found[0] if found else folder / f"{part}{suffixes[0]}"


def quotes_option(task: str) -> str:
    """How a configuration says `quotes` of a task, with {} for the value."""
    return f'quotes.{task} = "{{}}" in the configuration'


def check_quotes(quotes: Quotes) -> None:
    """Raises ConfigError for values that are no way to read quotes."""
    for task, value in (quotes or {}).items():
        require(f"quotes.{task}", value, value in QUOTES, f"one of {list(QUOTES)}")


def _read(folder: Path, part: str, quotes: Quotes) -> LabelledTexts:
    said = (quotes or {}).get(folder.name)
    data = read_labelled(file_of(folder, part), said, quotes_option(folder.name))
    if data.kind != SINGLE_LABEL:
        raise InputError(
            f"task {folder.name!r}: {data.path} has {data.kind} labels, expected {SINGLE_LABEL}, a "
            "column label. Leave the task out of the configuration's tasks; bitheads train-head "
            "trains a head for it."
        )
    if {"start", "end"} <= set(data.other_columns):  # the same text again with other labels
        raise InputError(
            f"task {folder.name!r}: {data.path} has labels of words, from start to end, expected "
            "labels of texts. Leave the task out of the configuration's tasks; wsd.task of table3 "
            "reads it."
        )
    return data


def _some(
    data: LabelledTexts, task: str, classes: tuple[str, ...], limit: int | None, seed: int
) -> Examples:
    label_ids = data.label_ids(classes)  # of the whole file, so that no sample hides a fault
    random = np.random.default_rng(seed_of(seed, f"{task} {data.path.stem}.tsv"))
    rows = np.sort(random.permutation(len(data))[:limit])
    texts = [data.texts[row] for row in rows]
    return Examples(texts, label_ids[rows], len(data), data.sha256)


def task_names(folder: Path) -> set[str]:
    """The folders with a training file. Raises InputError if the folder cannot be read."""
    try:
        return {path.name for path in folder.iterdir() if file_of(path, "train").is_file()}
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}). Name a folder with a folder per task, "
            "each with train.tsv and dev.tsv."
        ) from error


def choose_tasks(
    folder: Path,
    tasks: Iterable[str] = (),
    exclude_tasks: Iterable[str] = (),
    exclude_types: Iterable[str] = (),
) -> dict[str, str | None]:
    """Name of each task to train on, sorted -> its type, or None if there is no index.

    Args:
        tasks: names; none for all in the folder.

    Raises InputError for names and types that are not there, and if nothing is left.
    """
    found = task_names(folder)
    index = file_of(folder, INDEX, TABLES)
    types = _read_index(index)
    tasks, exclude_tasks, exclude_types = map(set, (tasks, exclude_tasks, exclude_types))
    if unknown := sorted((tasks | exclude_tasks) - found):
        raise InputError(
            f"{folder}: has no task {', '.join(map(repr, unknown))}, expected some of "
            f"{sorted(found)}. Correct the name, or add the folder with train.tsv and dev.tsv."
        )
    if unknown := sorted(exclude_types - set(types.values())):
        raise InputError(
            f"{index}: has no type {', '.join(map(repr, unknown))}, expected some of "
            f"{sorted(set(types.values()))}. Correct the type, or add it to the index."
        )
    chosen = {
        name: types.get(name)
        for name in sorted((tasks or found) - exclude_tasks)
        if types.get(name) not in exclude_types
    }
    if not chosen:
        raise InputError(
            f"{folder}: no task is left of {sorted(tasks or found)}. Exclude fewer tasks or types, "
            "or name another folder."
        )
    return chosen


def read_index_order(folder: Path) -> Callable[[str], tuple[int, str]]:
    """A key to sort tasks by: first those of the index, in its order, then the others by name."""
    order = list(_read_index(file_of(folder, INDEX, TABLES)))
    places = {name: place for place, name in enumerate(order)}
    return lambda name: (places.get(name, len(order)), name)


def _read_index(path: Path) -> dict[str, str]:
    """Task -> type, from the columns `name` and `type`; empty if there is no such file."""
    if not path.exists():
        return {}
    # Nothing says how to read the quotes of a TSV index, whose names and types have none.
    quotes = None if path.suffix == ".csv" else "none"

    def check(header: tuple[str, ...]) -> None:
        if not {"name", "type"} <= set(header):
            raise InputError(
                f"{path}, line 1: got the columns {list(header)}, expected name and type among "
                "them, tabs between them, in CSV commas. Add them as the first line."
            )

    expected = "a file with the columns name and type"
    table = read_table(path, quotes, expected=expected, check_header=check)
    rows = [dict(zip(table.header, row.cells, strict=True)) for row in table.rows]
    return {row["name"]: row["type"] for row in rows}
