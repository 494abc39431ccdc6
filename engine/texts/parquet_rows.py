"""Rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # it needs pyarrow, which who reads lines need not have
    from bitheads.engine.files.input_files import RemoteFile

BATCH_ROWS = 1024


class Footer(NamedTuple):
    """What Parquet's footer says: names and Arrow types of the columns, and the number of rows."""

    names: list[str]
    types: list[Any]
    rows: int


def read_footer(path: Path | RemoteFile) -> Footer:
    """Raises OSError, and ArrowException for what is no Parquet."""
    with _open(path) as file:
        schema = file.schema_arrow
        return Footer(list(schema.names), list(schema.types), file.metadata.num_rows)


def read_rows(
    path: Path | RemoteFile, columns: Sequence[str | None], within: tuple[int, int] | None
) -> Iterator[tuple[int, Sequence[Any]]]:
    """Values of the columns, with the rows' numbers. Raises OSError and ArrowException.

    Args:
        columns: by name; the values of None are None.
        within: number of the first row, and of that behind the last; None for all.
    """
    file = _open(path)
    wanted = [name for name in columns if name is not None]
    first, last = within or (0, file.metadata.num_rows)
    row = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        row += rows
        if row <= first or row - rows >= last:
            continue
        at = row - rows
        for batch in file.iter_batches(BATCH_ROWS, [group], wanted):
            nothing = [None] * len(batch)
            lists = [nothing if n is None else _values(batch.column(n)) for n in columns]
            for number, values in enumerate(zip(*lists, strict=True), at):
                if first <= number < last:
                    yield number, values
            at += len(batch)


def kind_of(column: Any) -> str | None:
    """What values of an Arrow type are, as far as texts and ids go; None where all are null."""
    from pyarrow import types

    if types.is_dictionary(column):
        column = column.value_type
    if types.is_null(column):
        return None
    if types.is_integer(column):
        return "whole numbers"
    is_text = types.is_string(column) or types.is_large_string(column)
    return "texts" if is_text or types.is_string_view(column) else str(column)


def _open(path: Path | RemoteFile) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path if isinstance(path, Path) else path.open_native())


def _values(column: Any) -> list[Any]:
    """Of an Arrow array; a text that is not UTF-8 is bytes."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        found = [_value(scalar) for scalar in column]
    return found


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return bytes(scalar.as_buffer())
