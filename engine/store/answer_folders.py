"""Where an output of `bitheads backfill` keeps which answers, for who reads and who writes them.

    OUTPUT/task=topic/part-00000000-1a2b3c4d.parquet                     one head per task
    OUTPUT/task=topic/head=h1a2b3c4d5e6f/part-00000000-1a2b3c4d.parquet  heads beside each other

All tasks of an output have the same of these two layouts: DuckDB and others refuse files of which
some are in folders `head=...` and some are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from bitheads.engine.errors import StoreError
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.part import SUFFIX, Part

TASK, HEAD = "task", "head"
"""Columns of every file of answers, and what the folders' names say."""

TASK_FOLDER, HEAD_FOLDER = f"{TASK}=", f"{HEAD}="
"""What the names of a task's folder, and of a head's folder in it, begin with."""

PAIR_IDS = ("id_a", "id_b")
"""Columns of the ids of pairs, in answers and in files of pairs."""

SOURCE_SEAL, SOURCE_STORE = "source_seal", "store"
"""What an answer file's footer says: the seal of what it is made of, and the store."""

HEAD_SHA256, FORM, PAIRS_SHA256 = "head_sha256", "form", "pairs_sha256"
"""What it says of the head, and of the file of pairs."""

VERSION, VERSION_KEY = 2, "answers_version"
"""Those of version 1, which do not say it, have no columns `task` and `head`."""


def head_name(sha256: str) -> str:
    """What a head is called in answers, by the SHA-256 of its file.

    The letter is there for readers that guess types: 12 digits by chance, or 1e5, are no number.
    """
    return f"h{sha256[:12]}"


@dataclass(frozen=True)
class AnswerFolder:
    """A folder with files of one task's answers.

    Attributes:
        head: by its folder's name; None where there is one head per task.
    """

    task: str
    head: str | None
    folder: Folder


def answer_folders(output: Folder) -> list[AnswerFolder]:
    """All of an output, sorted. Raises StoreError if it cannot be listed."""
    found = []
    for name in output.folders(TASK_FOLDER):
        task, folder = name.removeprefix(TASK_FOLDER), output.below(name)
        heads = folder.folders(HEAD_FOLDER)
        if not heads or folder.names(SUFFIX):
            found.append(AnswerFolder(task, None, folder))
        found += [
            AnswerFolder(task, head.removeprefix(HEAD_FOLDER), folder.below(head)) for head in heads
        ]
    return found


def check_layout(output: Folder, keeps_heads: bool) -> None:
    """Raises StoreError for an output that has answers in the other layout."""
    for one in answer_folders(output):
        if (one.head is not None) != keeps_heads and one.folder.names(SUFFIX):
            has, option = (
                ("one head per task", "without --other-heads keep")
                if keeps_heads
                else ("heads of a task beside each other", "with --other-heads keep")
            )
            raise StoreError(
                f"{one.folder}: has answers of {has}, expected one layout in all of an output. Run "
                f"it {option}, or choose another output."
            )


def seal_of_pairs(pairs_sha256: str, parts: Iterable[Part]) -> str:
    """Stands for all that the answers of a file of pairs are made of: any change of the store may
    be one of a text's codes."""
    digest = hashlib.sha256(pairs_sha256.encode())
    for part in sorted(parts, key=lambda part: part.name):
        digest.update(f"\n{part.name} {part.seal}".encode())
    return digest.hexdigest()


def seal_of_block(seal_of_all: str, number: int) -> str:
    """The same of one block of it."""
    return hashlib.sha256(f"{seal_of_all} {number}".encode()).hexdigest()


def block_name(number: int) -> str:
    """Of the file that has a block's answers."""
    return f"pairs-{number:08d}{SUFFIX}"
