"""The shipped heads and the data of each."""

from __future__ import annotations

from pathlib import Path

from bitheads.engine.errors import InputError
from bitheads.training.data.tasks import file_of

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


def require_data(data: Path, *names: str) -> None:
    """Raises InputError for a folder of TASKS without the first of its files `names`."""
    missing = [f for f in TASKS.values() if not file_of(data / f, names[0]).is_file()]
    if missing:
        files = " and ".join(f"{name}.tsv" for name in names)
        raise InputError(
            f"--data {data}: no {missing[0]}/{names[0]}.tsv in it. Expected a folder per task "
            f"({', '.join(TASKS.values())}) with {files}."
        )
