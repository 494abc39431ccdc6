"""Rows of answers that must go: sealed files of any task, written again without some ids."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitheads.engine.errors import StoreError
from bitheads.engine.store import sealed
from bitheads.engine.store.answer_folders import (
    PAIR_IDS,
    SOURCE_SEAL,
    SOURCE_STORE,
    TASK_FOLDER,
    AnswerFolder,
    answer_folders,
)
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.part import SUFFIX
from bitheads.engine.store.schema import ID


class AnswersOfTask:
    """One folder of an output: a task's, or where heads stand beside each other a head's.

    Attributes:
        output: as it was named.
    """

    def __init__(self, output: Folder, found: AnswerFolder) -> None:
        self.output, self.task, self.head = str(output), found.task, found.head
        self.folder = found.folder

    def names(self) -> list[str]:
        """Of its files."""
        return self.folder.names(SUFFIX)

    def check(self, store_id: str | None) -> None:
        """Raises StoreError if some are of another store, or nothing that was answered."""
        for name in self.names():
            shown = f"{self.folder}/{name}"
            with self.folder.open(name) as file:
                footer = sealed.read_footer(file, shown)
            columns = footer.metadata.schema.to_arrow_schema().names
            if SOURCE_SEAL not in footer.part or not {ID, *PAIR_IDS}.intersection(columns):
                raise StoreError(
                    f"{shown}: holds no answers, expected those that `bitheads backfill` writes. "
                    "Name the right output."
                )
            of_store = footer.part.get(SOURCE_STORE)
            if of_store is not None and of_store != store_id:
                raise StoreError(
                    f"{shown}: has the answers of another store, expected those of the one that "
                    "is named. Nothing was deleted: name outputs of this store alone."
                )

    def write_without(self, name: str, ids: pa.Array, seals: dict[str, str]) -> int:
        """Writes a file again without the rows of these ids; returns how many those were.

        Args:
            seals: of the parts that were written again without the same ids, by those that they had
                before: other rows' answers are theirs as they are.

        Raises StoreError for damaged bytes, and if it cannot be written.
        """
        shown = f"{self.folder}/{name}"
        with self.folder.open(name) as file:
            footer = sealed.read_footer(file, shown)
            source = footer.part[SOURCE_SEAL]
            parquet = sealed.open_parquet(file, footer, shown)
            tables = [_read(parquet, i, shown) for i in range(parquet.num_row_groups)]
        kept = [table.filter(pc.invert(_has_one(table, ids))) for table in tables]
        gone = sum(map(len, tables)) - sum(map(len, kept))
        if not gone and source not in seals:
            return 0
        if gone and not any(map(len, kept)):
            self.folder.remove(name)
            return gone
        aside = self.folder.write_aside(name)
        with aside.writing():
            writer = sealed.SealedWriter(
                aside.file,
                tables[0].schema if tables else parquet.schema_arrow,
                compression="zstd",
                use_dictionary=_in_dictionary(footer.metadata),
            )
            for table in filter(len, kept):
                writer.write(table)
            writer.close({**footer.part, SOURCE_SEAL: seals.get(source, source)})
        aside.publish()
        return gone


def open_answers(output: Folder, store_id: str | None) -> list[AnswersOfTask]:
    """All tasks of an output, without what killed runs left. Hold its lock.

    Raises StoreError if there are none, or some are of another store.
    """
    tasks = [AnswersOfTask(output, found) for found in answer_folders(output)]
    if not tasks:
        raise StoreError(
            f"{output}: holds no answers, expected an output of `bitheads backfill` with a folder "
            f"{TASK_FOLDER}... for each task. Nothing was deleted: name the right one."
        )
    for task in tasks:
        task.check(store_id)
    for task in tasks:
        task.folder.remove_leftovers()
    return tasks


def _read(parquet: Any, group: int, shown: str) -> pa.Table:
    try:
        return parquet.read_row_group(group, use_threads=False)
    except pa.ArrowException as error:
        raise StoreError(f"{shown}: cannot be decoded ({error}).") from error


def _has_one(table: pa.Table, ids: pa.Array) -> Any:
    """Rows of which an id is one of these, bool [rows]."""
    columns = [name for name in (ID, *PAIR_IDS) if name in table.column_names]
    return reduce(pc.or_, (pc.is_in(table[name], ids) for name in columns))


def _in_dictionary(metadata: pq.FileMetaData) -> list[str]:
    """Parquet's names of the columns that were written so."""
    if not metadata.num_row_groups:
        return []
    group = metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    return [one.path_in_schema for one in columns if "RLE_DICTIONARY" in one.encodings]
