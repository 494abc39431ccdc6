"""The shipped heads for one label, and the data of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bitheads.engine.errors import InputError
from bitheads.training.data.tasks import file_of
from bitheads.training.heads.background import default_background

T = TypeVar("T")

TASKS = {
    "sentiment": "sst2",
    "topic": "ag_news",
    "spam": "spam_assassin",
    "offensive": "hate_offensive",
    "intent": "clinc150",
    "duplicate": "qqp",
    "clickbait": "clickbait",
}
"""Shipped head -> folder of the data that it is trained on."""


def background_of(data: Path, task: str) -> tuple[Path, ...]:
    """What is none of a task's business: the texts that come with the project, and other tasks'."""
    others = (file_of(data / folder, "train") for name, folder in TASKS.items() if name != task)
    return (default_background(), *others)


def require_data(data: Path, *names: str) -> None:
    """Raises InputError for a folder of TASKS without the first of its files `names`."""
    missing = [f for f in TASKS.values() if not file_of(data / f, names[0]).is_file()]
    if missing:
        files = " and ".join(f"{name}.tsv" for name in names)
        raise InputError(
            f"--data {data}: no {missing[0]}/{names[0]}.tsv in it. Expected a folder per task "
            f"({', '.join(TASKS.values())}) with {files}."
        )


def chosen(option: str, names: Sequence[str] | None, known: Mapping[str, T]) -> dict[str, T]:
    """Those of `known` that a user named, or all. Raises InputError for others."""
    if other := [name for name in names or () if name not in known]:
        raise InputError(f"{option}: got {other[0]}, expected some of {', '.join(known)}.")
    return {name: known[name] for name in names or known}
