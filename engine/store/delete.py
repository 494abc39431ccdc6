"""Texts that must go: their codes from every part, their answers from every task's folder.

Each file that has some of them is written again without them, under its name, in one step: an id is
in a part or gone from it. So a run that was killed left some files as they were, and running it
again does those. No file that once had a row of them stays: parts that others replace and what
killed runs left aside are removed first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bitheads.engine.errors import InputError
from bitheads.engine.store import schema
from bitheads.engine.store.answers_without import AnswersOfTask, open_answers
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.outdated import Outdates
from bitheads.engine.store.part import Part, still_outdated
from bitheads.engine.store.part_writer import ROW_GROUP_BYTES, PartWriter, new_store_id
from bitheads.engine.store.store import FeatureStore
from bitheads.engine.store.writer import clean_up


@dataclass(frozen=True)
class DeletedPart:
    """A part that had some of the ids.

    Attributes:
        rows: of them in it, those that another part has anew, too.
        removed: whether it is gone, as it had no others; else it was written again.
    """

    part: str
    rows: int
    removed: bool


@dataclass(frozen=True)
class DeletedAnswers:
    """What a task's folder of an output had of them: so many rows, in these files.

    Attributes:
        head: whose answers they were, where an output keeps those of several.
    """

    output: str
    task: str
    rows: int
    files: list[str]
    head: str | None = None


@dataclass(frozen=True)
class Deleted:
    """What was deleted.

    Attributes:
        store: as it was named; store_id: the id that it keeps.
        asked: ids that were to go.
        rows: texts of the store that went.
        absent: ids that the store did not have when this began, in the order asked.
        parts: of the store that had some.
        answers: of every task of every output that was named, those without such rows, too.
    """

    store: str
    store_id: str | None
    asked: int
    rows: int
    absent: list[str]
    parts: list[DeletedPart]
    answers: list[DeletedAnswers]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def delete(
    store: FeatureStore,
    ids: Iterable[str],
    answers: Sequence[str | Path] = (),
    filesystem: Any = None,
    row_group_bytes: int = ROW_GROUP_BYTES,
) -> Deleted:
    """Deletes texts by id, codes and answers; the bytes are gone from the folders in the end.

    Safe to kill at any moment: of each file there is the old one or the new one, and running it
    again does what is left. A store of which all is deleted keeps one part without rows, with its
    feature spec and its id.

    Args:
        ids: strings; of a store that has whole numbers as ids, their digits.
        answers: outputs of `bitheads backfill`, folders or URIs to which `filesystem` belongs. All
            tasks in them lose their answers of these texts, and of pairs with one of them.

    Raises InputError for ids that are no strings, StoreError for damaged files, outputs without
    answers or with those of another store, if another process writes, or nobody can.
    """
    wanted = _check_ids(ids)
    outputs = [Folder(output, filesystem) for output in answers]
    with ExitStack() as locks:
        for folder in (store.folder, *outputs):
            locks.enter_context(folder.lock())
        clean_up(store)  # a part that was replaced has all it had
        tasks = [task for output in outputs for task in open_answers(output, store.id)]
        values = pa.array(wanted, pa.string())
        found: set[str] = set()
        parts, seals = [], {}
        live = len(store.parts)
        for part in store.parts:
            held = part.find(values, outdated=True)
            if not held.ids:
                continue
            found.update(held.ids)
            outdates = still_outdated([part], store.parts)
            left = part.rows - len(part.find(values).ids)
            removed = left == 0 and live > 1 and not outdates
            if removed:
                store.folder.remove(part.name)
                live -= 1
            else:
                seals[part.seal] = _write_without(store, part, values, outdates, row_group_bytes)
            parts.append(DeletedPart(part.name, len(held.ids), removed))
        store.folder.sync()
        store.refresh()
        done = [_delete_answers(task, values, seals) for task in tasks]
    return Deleted(
        store=str(store.folder),
        store_id=store.id,
        asked=len(wanted),
        rows=len(found),
        absent=[name for name in wanted if name not in found],
        parts=parts,
        answers=done,
    )


def _check_ids(ids: Iterable[str]) -> list[str]:
    """Each once. Raises InputError for others than strings: to who asks, 1 need not be "1"."""
    if isinstance(ids, str | bytes):
        raise InputError(f"ids: got {ids!r:.60}, expected a list of strings. Put it into one.")
    found = list(dict.fromkeys(ids))
    for name in found:
        if not isinstance(name, str):
            raise InputError(
                f"ids: got {name!r:.60}, expected strings: a store keeps a whole number as its "
                "digits. Say which text you mean: str(id)."
            )
    return found


def _write_without(
    store: FeatureStore, part: Part, values: pa.Array, outdates: Outdates, row_group_bytes: int
) -> str:
    """Writes a part again without these ids; returns its seal."""
    writer = PartWriter(
        store.folder,
        part.name,
        part.schema,
        store.id or new_store_id(),
        row_group_bytes,
        part.numbering,
        outdates,
    )
    try:
        for table in part.tables():
            left = table.filter(pc.invert(pc.is_in(table[schema.ID], values)))
            if len(left):
                writer.append(left)
        return writer.publish()
    finally:
        writer.discard()


def _delete_answers(task: AnswersOfTask, values: pa.Array, seals: dict[str, str]) -> DeletedAnswers:
    files, rows = [], 0
    for name in task.names():
        if found := task.write_without(name, values, seals):
            files.append(name)
            rows += found
    task.folder.sync()
    return DeletedAnswers(task.output, task.task, rows, files, task.head)
