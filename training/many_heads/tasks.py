"""A folder of tasks of any kind: which there are, and their labelled texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import LabelledTexts, read_labelled
from bitheads.training.data.rows import format_of
from bitheads.training.data.tasks import file_of, task_names

PARTS = ("train", "dev", "test")


def choose(data: Path, tasks: tuple[str, ...], exclude: tuple[str, ...]) -> list[str]:
    """Names of the tasks of a folder, sorted; those that are named, or all.

    Raises InputError for names that are not there, and if nothing is left.
    """
    found = task_names(data)
    if unknown := sorted({*tasks, *exclude} - found):
        raise InputError(
            f"{data}: has no task {', '.join(map(repr, unknown))}, expected some of "
            f"{sorted(found)}. Correct the name, or add a folder with a training file, such as "
            "train.tsv."
        )
    chosen = sorted(({*tasks} or found) - {*exclude})
    if not chosen:
        raise InputError(
            f"{data}: got no task, expected a folder per task, each with a training file such as "
            "train.tsv, or train.csv, train.jsonl or train.parquet. Name another folder (--data)."
        )
    return chosen


def read_sets(
    folder: Path, kind: str | None = None, quotes: str | None = None
) -> dict[str, LabelledTexts]:
    """A task's labelled texts: "train", and "dev" and "test" where there are such files.

    Args:
        kind, quotes: see `read_labelled`; quotes are for files that are TSV or CSV.

    Raises InputError, with file and line, for anything malformed.
    """
    sets = {}
    for part in PARTS:
        path = file_of(folder, part)
        if part != "train" and not path.is_file():
            continue
        said = quotes if format_of(path) in ("tsv", "csv") else None
        sets[part] = read_labelled(path, said, kind=kind)
    return sets


def identity_of(sets: Mapping[str, LabelledTexts]) -> dict[str, object]:
    """What tells whether a task's data is the same."""
    return {
        part: {"sha256": data.sha256, "kind": data.kind, "form": data.form, "rows": len(data)}
        for part, data in sets.items()
    }
