"""Columns of the user's own that texts bring along: their types, and their values row by row.

Parquet and Arrow say the types. Cells of TSV and CSV are strings, and so is what Hive's folders
say (`day=2024-01-01`), which counts for a column of that name in the files, too, as it does to
DuckDB, polars, Spark and pyarrow's data sets. JSON lines are read once before: all values of a
column are texts, numbers or booleans, and a row without it has null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from bitheads.engine.errors import InputError
from bitheads.engine.texts.column_files import BatchRow, own_type

if TYPE_CHECKING:  # who reads lines need not have it
    import pyarrow as pa

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
EXACT = 1 << 53
"""Whole numbers to this one are numbers of float64, too."""

WHOLE, LARGE, NUMBERS = "whole numbers", "whole numbers beyond 2^53", "numbers"
JSON_TYPES = {
    "true or false": "bool",
    WHOLE: "int64",
    LARGE: "int64",
    NUMBERS: "double",
    "texts": "string",
}
"""By kind of JSON value: Arrow's name of its type."""


class Found(NamedTuple):
    """A kind of values in a column of a file.

    Attributes:
        type: Arrow's.
        row: number of the first row that has one; None where the schema says it for all.
    """

    type: Any
    row: int | None = None


Kinds = Mapping[str, Found]
"""By what errors call them; none of a column whose values are all null."""


def partitions_of(path: str) -> dict[str, str | None]:
    """What the folders of a path say, `name=value`, of folders of one name the innermost.

    Raises InputError for what is not UTF-8 once it is decoded.
    """
    found: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        name, mark, value = folder.partition("=")
        if not mark or not name:
            continue
        try:
            decoded = unquote(value, errors="strict")
            found[unquote(name, errors="strict")] = None if decoded == HIVE_NULL else decoded
        except UnicodeDecodeError as error:
            raise InputError(
                f"--input {path}: the folder {folder!r} is not UTF-8 once it is decoded ({error}), "
                "expected name=value as Hive writes it. Rename it."
            ) from error
    return found


@dataclass(frozen=True)
class OwnColumns:
    """Of one file.

    Attributes:
        path: of the file.
        names: the columns that are wanted; most often none.
    """

    path: str
    names: tuple[str, ...]

    @cached_property
    def partitions(self) -> dict[str, str | None]:
        """What the path's folders say of them. Raises InputError."""
        said = partitions_of(self.path) if self.names else {}
        return {name: said[name] for name in self.names if name in said}

    @cached_property
    def _in_rows(self) -> list[str]:
        return [name for name in self.names if name not in self.partitions]

    def values(self, said: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Of a row, from what it says of all columns, null where it says nothing; None without any
        column."""
        if not self.names:
            return None
        known = {**said, **self.partitions}
        return tuple(known.get(name) for name in self.names)

    def kinds_of_partitions(self) -> dict[str, dict[str, Found]]:
        """By column."""
        import pyarrow as pa

        return {name: {"texts": Found(pa.string())} for name in self.partitions}

    def kinds_of_schema(self, there: list[str], types: list[Any] | None) -> dict[str, Kinds]:
        """By column, of those that there are.

        Args:
            there: names of all of the file's columns.
            types: of Arrow; None where all are texts.

        Raises InputError for one that is there twice.
        """
        import pyarrow as pa

        found: dict[str, Kinds] = {**self.kinds_of_partitions()}
        for name in self._in_rows:
            if there.count(name) > 1:
                raise InputError(
                    f"--input {self.path}: more than one column {name!r}, got {there}. Leave it "
                    "out of --columns, or name each once."
                )
            if name in there:
                kind = pa.string() if types is None else own_type(types[there.index(name)])
                shown = "texts" if kind == pa.string() else str(kind)
                found[name] = {} if pa.types.is_null(kind) else {shown: Found(kind)}
        return found

    def add_kinds(
        self, found: dict[str, dict[str, Found]], row: int, said: Mapping[str, Any]
    ) -> None:
        """Adds those of a row of JSON. Raises InputError for what cannot be stored."""
        import pyarrow as pa

        for name, kind in self.kinds_in(row, said).items():
            column = found.setdefault(name, {})
            if kind is not None and kind not in column:
                column[kind] = Found(pa.type_for_alias(JSON_TYPES[kind]), row)

    def kinds_in(self, row: int, said: Mapping[str, Any]) -> dict[str, str | None]:
        """By column, of a row of JSON. Raises InputError for what cannot be stored."""
        kinds = {}
        for name in (name for name in self._in_rows if name in said):
            try:
                kinds[name] = kind_of_json(said[name])
            except ValueError as error:
                raise InputError(
                    f"--input {self.path}: row {row} has {said[name]!r:.60} in column {name!r}, "
                    "expected a text, a number of 64 bits, true, false or null. Write lists and "
                    "objects as JSON in a text, or all as Parquet."
                ) from error
        return kinds


def kind_of_json(value: Any) -> str | None:
    """What a value of JSON is; None of null. Raises ValueError for what cannot be stored."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return WHOLE if abs(value) <= EXACT else LARGE
    if isinstance(value, float) and not math.isinf(value):
        return NUMBERS
    if isinstance(value, str):
        value.encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
        return "texts"
    raise ValueError("a text, a number of 64 bits, true, false or null")


def fields_of(
    names: Sequence[str], files: Iterable[tuple[str, str, Mapping[str, Kinds]]]
) -> tuple[pa.Field, ...]:
    """The columns of an input.

    Args:
        names: which are wanted.
        files: of each its path, its format, and the kinds of what it has, by column.

    Raises InputError for a name that comes twice, a column that a file does not have, or one that
    is of several types.
    """
    import pyarrow as pa

    if len(set(names)) != len(names):
        raise InputError(f"--columns: got {list(names)}, expected each once. Leave one out.")
    found: dict[str, dict[str, tuple[Found, str]]] = {name: {} for name in names}
    missing: dict[str, str] = {}
    is_json, seen = False, set[str]()
    for path, form, columns in files:
        is_json = form == "jsonl"
        for name in names:
            if name not in columns:
                missing.setdefault(name, path)
                continue
            seen.add(name)
            for kind, one in columns[name].items():
                found[name].setdefault(kind, (one, path))
    for name, path in missing.items():
        # Spark leaves a null out of JSON lines, so that a file may have no row with the column.
        if name not in seen or not is_json:
            raise InputError(
                f"--input {path}: no column {name!r}, expected what --columns names in all files: "
                "as a column, or as a folder day=2024-01-01. Leave it out, or name files that have "
                "it."
            )
    return tuple(pa.field(name, _type_of(name, kinds, is_json)) for name, kinds in found.items())


def _type_of(name: str, kinds: Mapping[str, tuple[Found, str]], is_json: bool) -> Any:
    import pyarrow as pa

    if not kinds:  # all values are null
        return pa.null()
    if is_json and {*kinds} == {WHOLE, NUMBERS}:
        return pa.float64()
    (kind, (first, path)), *others = kinds.items()
    for other, (one, where) in others:
        if one.type != first.type or NUMBERS in kinds:
            at = "" if one.row is None else f" in row {one.row}"
            before = "" if first.row is None else f" (row {first.row})"
            raise InputError(
                f"--input {where}: column {name!r} has {other}{at}, expected {kind} as in "
                f"{path}{before}. Write the files with one type, or leave it out of --columns."
            )
    return first.type


def make_columns(rows: Sequence[Any], fields: Sequence[pa.Field]) -> dict[str, pa.Array]:
    """The columns of some rows, by name.

    Args:
        rows: each a tuple of the values, or a BatchRow.

    Raises InputError for values that are not of the fields' types, as the file has changed.
    """
    import pyarrow as pa

    columns = {}
    batches = []
    if rows and isinstance(rows[0], BatchRow):
        for _, group in groupby(rows, key=lambda row: id(row.batch)):
            of_one = [*group]
            batches.append(of_one[0].batch.take(pa.array([row.row for row in of_one])))
    for at, field in enumerate(fields):
        kind = field.type
        try:
            if batches:
                chunks = [batch.column(at) for batch in batches]
                cast = [one if one.type == kind else one.cast(kind) for one in chunks]
                columns[field.name] = pa.concat_arrays(cast)
            else:
                columns[field.name] = pa.array([row[at] for row in rows], kind)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(
                f"column {field.name!r}: has values that are no {kind} ({error}), which it was "
                "when the input was looked at. See that no program writes to the files meanwhile."
            ) from error
    return columns
