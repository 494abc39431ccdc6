"""Rows of files of columns: Parquet, and Arrow's streams and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # it needs pyarrow, which who reads lines need not have
    from bitheads.engine.files.input_files import RemoteFile

BATCH_ROWS = 1024
MAGIC = b"ARROW1"
"""What an Arrow file begins with, and a stream does not."""

END = b"\xff\xff\xff\xff\0\0\0\0"
"""What a stream ends with. Arrow reads one without it to its end, too, but so ends what a killed
program has written, or an archive that was cut short: with rows missing."""


class Footer(NamedTuple):
    """What a file says of itself: names and Arrow types of the columns."""

    names: list[str]
    types: list[Any]


class BatchRow(NamedTuple):
    """A row of an Arrow batch of the user's own columns, its values not taken out yet."""

    batch: Any
    row: int


class ColumnFile:
    """A file of columns.

    Args:
        kind: "parquet" or "arrow".
    """

    def __init__(self, path: Path | RemoteFile, kind: str) -> None:
        self._path, self._is_parquet = path, kind == "parquet"

    def footer(self) -> Footer:
        """Raises OSError, and ArrowException for what is no such file, or a stream without end."""
        with self._open() as file:
            schema = file.schema_arrow if self._is_parquet else file.schema
            return Footer(list(schema.names), list(schema.types))

    def count(self) -> int:
        """Its rows; Arrow says them batch by batch. Raises OSError and ArrowException."""
        with self._open([0]) as file:
            if self._is_parquet:
                return int(file.metadata.num_rows)
            return sum(len(batch) for batch in _batches(file))

    def is_empty(self) -> bool:
        """Whether it has no row. Raises OSError and ArrowException."""
        with self._open([0]) as file:
            if self._is_parquet:
                return not file.metadata.num_rows
            return not any(len(batch) for batch in _batches(file))

    def rows(
        self,
        columns: Sequence[str | None],
        within: tuple[int, int] | None,
        own: Sequence[str] = (),
        partitions: Mapping[str, str | None] | None = None,
    ) -> Iterator[tuple[int, tuple[Sequence[Any], Any]]]:
        """Rows with their numbers: values of the columns, and of the user's own a BatchRow, or the
        ArrowException of one that cannot be stored.

        Args:
            columns: by name; the values of None are None.
            within: number of the first row, and of that behind the last; None for all.
            own: the user's columns, by name.
            partitions: those of them that the file's folders say, for all of its rows.

        Raises OSError and ArrowException.
        """
        said = partitions or {}
        names = [*columns, *(name for name in own if name not in said)]
        wanted = dict.fromkeys(name for name in names if name is not None)
        for at, batch in self._batches_within([*wanted], within):
            first, last = within or (at, at + len(batch))
            nothing = [None] * len(batch)
            lists = [nothing if n is None else _values(batch.column(n)) for n in columns]
            owns = _own_rows(batch, own, said)
            for number, values, own_row in zip(
                range(at, at + len(batch)), zip(*lists, strict=True), owns, strict=True
            ):
                if first <= number < last:
                    yield number, (values, own_row)

    def _batches_within(
        self, names: Sequence[str], within: tuple[int, int] | None
    ) -> Iterator[tuple[int, Any]]:
        """Batches that have rows of a range, with the number of their first row."""
        at = 0
        if not self._is_parquet:
            with self._open() as file:
                places = [file.schema.get_field_index(name) for name in names]
            with self._open(sorted(places)) as file:
                for batch in _batches(file):
                    if within is None or at + len(batch) > within[0]:
                        _check(batch)
                        for start in range(0, len(batch), BATCH_ROWS):
                            yield at + start, batch.slice(start, BATCH_ROWS)
                    at += len(batch)
                    if within is not None and at >= within[1]:
                        return
            return
        with self._open() as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if within is not None and (at + rows <= within[0] or at >= within[1]):
                    at += rows
                    continue
                for batch in file.iter_batches(BATCH_ROWS, [group], list(names)):
                    yield at, batch
                    at += len(batch)

    @contextmanager
    def _open(self, fields: list[int] | None = None) -> Iterator[Any]:
        """A pyarrow reader.

        Args:
            fields: of Arrow, numbers of the columns to read; None for all.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path
        if self._is_parquet:
            with pq.ParquetFile(path if isinstance(path, Path) else path.open_native()) as file:
                yield file
            return
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        # Not mapped into memory: a file that another program cuts short would end the process.
        with pa.OSFile(str(path)) if isinstance(path, Path) else path.open_native() as source:
            is_file = source.read(len(MAGIC)) == MAGIC
            source.seek(max(0, source.size() - len(END)))
            if not is_file and source.read() != END:
                raise pa.ArrowInvalid("it does not end as a stream of Arrow does: rows are missing")
            source.seek(0)
            open_it = pa.ipc.open_file if is_file else pa.ipc.open_stream
            with open_it(source, options=options) as reader:
                yield reader


def kind_of(column: Any) -> str | None:
    """What values of an Arrow type are, as far as texts and ids go; None where all are null."""
    from pyarrow import types

    if types.is_dictionary(column):
        column = column.value_type
    if types.is_null(column):
        return None
    if types.is_integer(column):
        return "whole numbers"
    return "texts" if _is_text(column) else str(column)


def own_type(column: Any) -> Any:
    """The Arrow type that a column of the user's own is stored with: what one program writes as a
    dictionary, or text with offsets of 64 bits, another writes plain, and it means the same."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column):
        column = column.value_type
    if types.is_large_binary(column) or types.is_binary_view(column):
        return pa.binary()
    return pa.string() if _is_text(column) else column


def _is_text(column: Any) -> bool:
    from pyarrow import types

    is_plain = types.is_string(column) or types.is_large_string(column)
    return bool(is_plain or types.is_string_view(column))


def _batches(file: Any) -> Iterator[Any]:
    """All batches of an Arrow file or stream."""
    if hasattr(file, "num_record_batches"):
        yield from (file.get_batch(i) for i in range(file.num_record_batches))
    else:
        yield from file


def _check(batch: Any) -> None:
    """Raises ArrowException for offsets that lead out of a column, which Arrow itself believes; a
    text that is not UTF-8 is for its row to say."""
    import pyarrow as pa

    for column in batch.columns:
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.view(pa.large_binary())
        column.validate(full=True)


def _own_rows(batch: Any, own: Sequence[str], partitions: Mapping[str, str | None]) -> list[Any]:
    """See `ColumnFile.rows`; None for each where there are no such columns."""
    import pyarrow as pa

    if not own:
        return [None] * len(batch)
    arrays = [
        pa.repeat(pa.scalar(partitions[name], pa.string()), len(batch))
        if name in partitions
        else batch.column(name)
        for name in own
    ]
    mine = pa.RecordBatch.from_arrays(arrays, list(own))
    rows = [BatchRow(mine, row) for row in range(len(batch))]
    try:
        mine.validate(full=True)
    except pa.ArrowException:
        return [_valid(row) for row in rows]
    return rows


def _valid(row: BatchRow) -> Any:
    import pyarrow as pa

    try:
        row.batch.slice(row.row, 1).validate(full=True)
    except pa.ArrowException as error:
        return error
    return row


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
