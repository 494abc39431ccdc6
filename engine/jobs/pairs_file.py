"""Files that say which stored texts go together: two ids per row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bitheads.engine.errors import InputError
from bitheads.engine.store.answer_folders import PAIR_IDS
from bitheads.engine.texts.text_files import Columns, Range, TextFile, is_text
from bitheads.engine.types import Text

HASH_BYTES = 1 << 20
"""Bytes that are read at once."""

Result = TypeVar("Result")


class IdPair(NamedTuple):
    """Two ids, and what the file's row is called in errors."""

    place: str
    ids: tuple[str, str]


@dataclass(frozen=True)
class _IdColumns(TextFile):
    """A table whose texts are ids: texts, or whole numbers."""

    @cached_property
    def columns(self) -> Columns:
        """Raises InputError if a column is not there, or there twice."""
        names = self._names
        if names is not None and any(names.count(name) != 1 for name in PAIR_IDS):
            raise InputError(
                f"--pairs {self.path}: got the columns {names}, expected {' and '.join(PAIR_IDS)}, "
                "each once. Name those of the ids so."
            )
        return (*PAIR_IDS, None)

    def _as_row(self, row: int, columns: Columns, values: Sequence[Any]) -> tuple[str, Text]:
        for name, value in zip(PAIR_IDS, values[:2], strict=True):
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if not is_number and not is_text(value):
                raise InputError(
                    f"--input {self.path}: row {row} has {value!r:.60} in column {name!r}, "
                    "expected an id: a text or a whole number."
                )
        return self._place_of_row(row), (str(values[0]), str(values[1]))

    def _place_of_row(self, row: int) -> str:
        if self._dialect is not None:
            return self._place(row + 1)
        return f"line {row + 1}" if self.kind == "jsonl" else f"row {row}"


class PairsFile:
    """A table, TSV, CSV, JSON lines or Parquet by its suffix, with the columns id_a and id_b.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path, quotes: str | None = None) -> None:
        """
        Args:
            quotes: see TextFile.

        Raises InputError for another format, and for other columns.
        """
        self.path = path
        self._file = self._told(lambda: _IdColumns(path, None, *PAIR_IDS, None, quotes))
        self._told(lambda: self._file.columns)

    def sha256(self) -> str:
        """Of its bytes."""
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                for block in iter(lambda: file.read(HASH_BYTES), b""):
                    digest.update(block)
        except OSError as error:
            raise InputError(
                f"--pairs {self.path}: cannot be read ({error}). Name another file."
            ) from error
        return digest.hexdigest()

    def ranges(self, rows: int) -> Iterator[Range]:
        """Cuts the file into ranges of so many rows; of JSON lines, empty lines count."""
        return iter(self._told(lambda: [*self._file.ranges(rows)]))

    def rows(self, within: Range) -> Iterator[IdPair]:
        """The pairs of a range. Raises InputError for rows without two ids, with their number."""
        found = self._file.rows(within)
        while (row := self._told(lambda: next(found, None))) is not None:
            place, ids = row
            assert isinstance(ids, tuple)
            yield IdPair(place, ids)

    def _told(self, read: Callable[[], Result]) -> Result:
        """Errors name the option that the file came by."""
        try:
            return read()
        except InputError as error:
            raise InputError(str(error).replace("--input ", "--pairs ", 1)) from error
