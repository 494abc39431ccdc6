"""The rows of a file, whatever its format, before anything is known of what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

from bitheads.engine.errors import InputError
from bitheads.engine.process.install import how_to_install
from bitheads.engine.texts.tables import QUOTES_OPTION, check_utf8, table_of
from bitheads.engine.texts.text_files import SUFFIXES, is_text, lines_of, object_of
from bitheads.engine.types import Text
from bitheads.training.data.class_names import names_of_metadata
from bitheads.training.data.columns import Choose, Columns, Names

FORMATS = {suffix: form for suffix, form in SUFFIXES.items() if form not in ("lines", "arrow")} | {
    ".json": "jsonl"  # as Hugging Face datasets writes JSON lines
}
"""Suffix -> format; a file of any other suffix is TSV."""

Value = tuple[Any, ...]


@dataclass(frozen=True)
class Rows:
    """What is read of a file, or of rows in memory; there is at least one.

    Attributes:
        path: of the file; of rows in memory, their name.
        unit: what `numbers` count, "line" or "row".
        names: all columns that there are.
        columns: those that are read.
        numbers: of each row, the line in which it begins, from 1, or its own number, from 0.
        values: of each row as many as `columns.names`; of any type but in a delimited file.
        sha256: of the file's bytes; "" for rows in memory.
        class_names: column -> the names that whole numbers in it stand for.
        is_delimited: whether it is TSV or CSV, where each value is the text of a cell.
    """

    path: Path
    unit: str
    names: Names
    columns: Columns
    numbers: Sequence[int]
    values: list[Value]
    sha256: str = ""
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_delimited: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise _no_rows(self.path)

    def place(self, row: int) -> str:
        """What to call a row in errors."""
        return f"{self.path}, {self.unit} {self.numbers[row]}"

    def texts(self) -> list[Text]:
        """The texts, or pairs of texts. Raises InputError, with the place, for what is none."""
        names = self.columns.texts
        found: list[Text] = []
        for row, values in enumerate(self.values):
            for name, value in zip(names, values, strict=False):
                if not is_text(value):
                    raise InputError(
                        f"{self.place(row)}: got {value!r:.60} in the column {name}, expected a "
                        "text. Correct it, or leave the row out."
                    )
            found.append(str(values[0]) if len(names) == 1 else (str(values[0]), str(values[1])))
        return found

    def labels(self) -> list[Any]:
        """What the column of labels has, as it is."""
        return [values[-1] for values in self.values]


def format_of(path: Path) -> str:
    """Of a file of rows: tsv, csv, jsonl or parquet."""
    return FORMATS.get(path.suffix.lower(), "tsv")


def read_rows(
    path: Path, choose: Choose, quotes: str | None = None, option: str = QUOTES_OPTION
) -> Rows:
    """Reads TSV, CSV, JSON lines or Parquet, as the suffix says.

    Args:
        choose: called with the columns before any row is read.
        quotes, option: see `engine.texts.tables.choose_dialect`.

    Raises InputError, with the line or the row, for a file that is malformed or has no rows, and
    what `choose` raises.
    """
    form = format_of(path)
    data = read_bytes(path)
    if form not in ("jsonl", "parquet"):
        return _of_table(path, data, choose, quotes, option)
    if quotes is not None:
        raise InputError(
            f"{path}: got {option.format(quotes)}, expected it for TSV and CSV alone. Leave it out."
        )
    return (_of_json_lines if form == "jsonl" else _of_parquet)(path, data, choose)


def read_bytes(path: Path) -> bytes:
    """Raises InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Name a file of texts: TSV, CSV, JSON "
            "lines or Parquet."
        ) from error


def rows_of_objects(
    path: Path, unit: str, objects: Iterable[tuple[int, Mapping[str, Any]]], choose: Choose
) -> Rows:
    """Rows of objects with their numbers; the first one says which columns there are."""
    rest = iter(objects)
    first = next(rest, None)
    if first is None:
        raise _no_rows(path)
    names = tuple(first[1])
    columns = choose(f"{path}, {unit} {first[0]}", names)
    numbers, values = [], []
    for number, found in chain([first], rest):
        for name in columns.names:
            if name not in found:
                raise InputError(
                    f"{path}, {unit} {number}: has no {name!r}, expected "
                    f"{', '.join(columns.names)} as in the first row. Add it, or leave the row out."
                )
        numbers.append(number)
        values.append(tuple(found[name] for name in columns.names))
    return Rows(path, unit, names, columns, numbers, values)


def _of_table(path: Path, data: bytes, choose: Choose, quotes: str | None, option: str) -> Rows:
    def check(header: Names) -> None:
        choose(f"{path}, line 1", header)

    table = table_of(path, data, quotes, option, check)
    columns = choose(f"{path}, line 1", table.header)
    at = [table.header.index(name) for name in columns.names]
    values = [tuple(row.cells[i] for i in at) for row in table.rows]
    numbers = [row.line for row in table.rows]
    return Rows(path, "line", table.header, columns, numbers, values, table.sha256, {}, True)


def _of_json_lines(path: Path, data: bytes, choose: Choose) -> Rows:
    check_utf8(path, data)

    def objects() -> Iterable[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(lines_of(data), 1):
            if not line.strip():
                continue
            try:
                yield number, object_of(line)
            except ValueError as error:
                raise InputError(
                    f"{path}, line {number}: is not a JSON object ({error}). Write one row per "
                    "line, each an object of column and value."
                ) from error

    rows = rows_of_objects(path, "line", objects(), choose)
    return replace(rows, sha256=hashlib.sha256(data).hexdigest())


def _of_parquet(path: Path, data: bytes, choose: Choose) -> Rows:
    if find_spec("pyarrow") is None:
        raise InputError(f"{path}: Parquet needs pyarrow. Type: {how_to_install('store')}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(BytesIO(data))
        schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_parquet(path, error) from error
    names = tuple(schema.names)
    columns = choose(str(path), names)
    try:
        table = file.read(columns=list(columns.names))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_parquet(path, error) from error
    return rows_of_arrow(path, table, names, columns, hashlib.sha256(data).hexdigest())


def rows_of_arrow(path: Path, table: Any, names: Names, columns: Columns, sha256: str = "") -> Rows:
    """Rows of a pyarrow Table, or RecordBatch."""
    lists = [_values(path, table.column(name), name) for name in columns.names]
    values = list(zip(*lists, strict=True))
    class_names = names_of_metadata(table.schema.metadata)
    return Rows(path, "row", names, columns, range(len(values)), values, sha256, class_names)


def _values(path: Path, column: Any, name: str) -> list[Any]:
    """Arrow promises that its strings are UTF-8, and checks it only where one is asked for."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        for row, value in enumerate(column):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, row {row}: the column {name} is not UTF-8 ({error}). Write the file "
                    "again."
                ) from error
        raise
    return found


def _no_rows(path: Path) -> InputError:
    return InputError(f"{path}: has no rows. Add examples.")


def _no_parquet(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is no Parquet that can be read ({error}). Write the file again.")
