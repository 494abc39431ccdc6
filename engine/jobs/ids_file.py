"""Files that say which stored texts are meant: an id per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitheads.engine.errors import InputError
from bitheads.engine.texts.text_files import ID, Columns, TextFile, is_text
from bitheads.engine.types import Text

NUMBER, TEXT = "the whole number", "the text"


@dataclass(frozen=True)
class _IdColumn(TextFile):
    """A table whose texts are ids, each with what it is in place of an id of its own."""

    @cached_property
    def columns(self) -> Columns:
        """Raises InputError if there is no column of ids, or more than one of the name."""
        name = self.id_column or ID
        names = self._names
        if names is not None and names.count(name) != 1:
            raise InputError(
                f"--ids {self.path}: got the columns {names}, expected {name!r} once. Name the one "
                "that has the ids: --id-column."
            )
        return name, None, name

    def _as_row(self, row: int, columns: Columns, values: Sequence[Any]) -> tuple[str, Text]:
        value = values[0]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not is_number and not is_text(value):
            raise InputError(
                f"--input {self.path}: row {row} has {value!r:.60} in column {columns[0]!r}, "
                "expected an id: a text or a whole number."
            )
        return NUMBER if is_number else TEXT, str(value)


def read_ids(path: Path, id_column: str | None = None, quotes: str | None = None) -> list[str]:
    """The ids of a file, each once: an id per line, or a table by its suffix.

    Args:
        id_column: of a table; None: id.
        quotes: see TextFile.

    Raises InputError for a file that cannot be read, has no ids, or one that is a whole number here
    and the same digits as a text there.
    """
    found: dict[str, str] = {}
    try:
        for kind, name in _IdColumn(path, None, None, None, id_column, quotes).rows():
            assert isinstance(name, str)
            # In plain lines and tables of text all are texts; `kind` is then the row's number.
            if found.setdefault(name, kind) != kind and {found[name], kind} == {NUMBER, TEXT}:
                raise InputError(
                    f"--input {path}: has the whole number {name} and the text {name!r}, which are "
                    "one id in a store. Make sure which text is meant, and leave the other out."
                )
    except InputError as error:
        raise InputError(str(error).replace("--input ", "--ids ", 1)) from error
    if not found:
        raise InputError(f"--ids {path}: has no ids, expected one per row. Name another file.")
    return list(found)
