"""Answers of a task, read back: checked bytes as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitheads.engine.errors import InputError, StoreError
from bitheads.engine.store import sealed
from bitheads.engine.store.answer_folders import (
    HEAD_SHA256,
    SOURCE_SEAL,
    TASK_FOLDER,
    answer_folders,
    head_name,
)
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.part import SUFFIX


class Answers:
    """The answers of one task in an output of a backfill, as they are when they are opened.

    Whoever reads Arrow reads it: `polars.DataFrame(answers)`, `pyarrow.table(answers)`.

    Attributes:
        task: as it was named.
        heads: whose answers these are, as column `head` has them, sorted.
    """

    def __init__(
        self, output: str | Path, task: str, head: str | None = None, filesystem: Any = None
    ) -> None:
        """Reads the files' footers.

        Args:
            output: a folder or a URI, to which `filesystem` belongs.
            head: which one's, where several stand beside each other; None: all of them.

        Raises StoreError for damaged files, InputError for a task or a head that has no answers.
        """
        folder = Folder(output, filesystem)
        found = answer_folders(folder)
        tasks = sorted({one.task for one in found})
        if task not in tasks:
            raise InputError(
                f"task {task!r}: {folder} has no folder {TASK_FOLDER}{task}, expected one of "
                f"{tasks}. Backfill it, or name the right output."
            )
        self.task = task
        self._files: list[tuple[Folder, str, sealed.Footer]] = []
        heads = set()
        for one in found:
            for name in one.folder.names(SUFFIX) if one.task == task else ():
                shown = f"{one.folder}/{name}"
                with one.folder.open(name) as file:
                    footer = sealed.read_footer(file, shown)
                if SOURCE_SEAL not in footer.part or HEAD_SHA256 not in footer.part:
                    raise StoreError(
                        f"{shown}: holds no answers, and lies among them. Move it away."
                    )
                of_head = head_name(str(footer.part[HEAD_SHA256]))
                heads.add(of_head)
                if head in (None, of_head):
                    self._files.append((one.folder, name, footer))
        if head is not None and head not in heads:
            raise InputError(
                f"head {head!r}: {folder} has no answers of it for task {task!r}, expected one of "
                f"{sorted(heads)}."
            )
        self.heads = sorted(heads if head is None else {head})

    def __len__(self) -> int:
        """Number of rows."""
        return sum(footer.metadata.num_rows for _, _, footer in self._files)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """One per row group, in the order of the store's parts; with the columns that it has.

        Args:
            columns: None for all.

        Raises StoreError for damaged bytes, of which no row is handed out, and for files that were
        replaced since they were opened; InputError for columns that are not there.
        """
        for folder, name, footer in self._files:
            shown = f"{folder}/{name}"
            there = footer.metadata.schema.to_arrow_schema().names
            if unknown := [column for column in columns or () if column not in there]:
                raise InputError(
                    f"columns: {shown} has no column {unknown[0]!r}, expected some of {there}."
                )
            with folder.open(name) as file:
                if sealed.read_footer(file, shown).seal != footer.seal:
                    raise StoreError(
                        f"{shown}: was replaced since it was opened. Open the answers again."
                    )
                parquet = sealed.open_parquet(file, footer, shown)
                for group in range(footer.metadata.num_row_groups):
                    try:
                        table = parquet.read_row_group(
                            group, None if columns is None else list(columns), use_threads=False
                        )
                    except pa.ArrowException as error:
                        raise StoreError(f"{shown}: cannot be decoded ({error}).") from error
                    yield table
                if not footer.metadata.num_row_groups:
                    empty: pa.Table = parquet.schema_arrow.empty_table()
                    yield empty if columns is None else empty.select(list(columns))

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All of them; columns that one head has and another has not are null there.

        `to_pandas()` of it is a pandas.DataFrame, `polars.from_arrow` takes it as it is.

        Raises as `tables`.
        """
        tables = [*self.tables(columns)]
        if len(self.heads) > 1:  # each with labels of its own in its schema
            tables = [_nullable(table) for table in tables]
        if not tables:
            return pa.table({})
        return pa.concat_tables(tables, promote_options="default").unify_dictionaries()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """What Arrow's PyCapsule interface asks for."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)


def _nullable(table: pa.Table) -> pa.Table:
    fields = [field.with_nullable(True) for field in table.schema]
    return pa.table(table.columns, schema=pa.schema(fields))
