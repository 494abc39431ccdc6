"""Texts with ids from files: plain lines, TSV, CSV, JSON lines, these compressed, too; Parquet and
Arrow."""

from __future__ import annotations

import codecs
import json
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from bitheads.engine.errors import InputError
from bitheads.engine.files.compressed import CODECS, open_compressed
from bitheads.engine.process.install import how_to_install
from bitheads.engine.texts.column_files import ColumnFile, Footer, kind_of
from bitheads.engine.texts.own_columns import Kinds, OwnColumns
from bitheads.engine.texts.tables import DELIMITERS, Dialect, choose_dialect, decode
from bitheads.engine.types import Text

if TYPE_CHECKING:  # it needs pyarrow, which who reads lines need not have
    import pyarrow as pa

    from bitheads.engine.files.input_files import RemoteFile

FORMATS = ("lines", "tsv", "csv", "jsonl", "parquet", "arrow")
COLUMNAR = ("parquet", "arrow")
"""Those that have a schema, and need pyarrow."""

SUFFIXES = {
    ".txt": "lines",
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
}
ID, TEXT, PAIR = "id", "text", ("text_a", "text_b")
Columns = tuple[str, str | None, str | None]
"""Names of the columns of first texts, second texts and ids."""


@dataclass(frozen=True)
class BadRow:
    """A row that is no text with an id.

    Attributes:
        row: its number in its file.
        reason: what is wrong with it.
    """

    row: int
    reason: str


Row = tuple[str, Text, Any]
"""A row's id, its text, and the user's own columns of it, as `own_columns.make_columns` takes them;
None where none are asked for."""

Numbered = tuple[int, Row | BadRow | None]
"""A row's number in its file, and the row."""

OnBad = Callable[[Any, BadRow], None]
"""Is called with a bad row and the path of its file."""

COUNT_BYTES = 1 << 20


@dataclass(frozen=True)
class Range:
    """Some rows of a file, for one of several readers.

    Attributes:
        row: number of its first row; of its first record, the header being 0, in TSV and CSV.
        count: rows, or records.
        start: of its first line, in bytes; 0 in Parquet and Arrow.
        file: which of an input's files it is of.
        before: rows of the files before that one.
    """

    row: int
    count: int
    start: int = 0
    file: int = 0
    before: int = 0


@dataclass(frozen=True)
class TextFile:
    """A file of texts.

    Attributes:
        path: where it is.
        format: one of FORMATS; None: its suffix says it.
        text_column: which column has the texts. None: "text", or "text_a" and "text_b" for pairs.
            Plain lines have no columns.
        pair_column: which column has the second texts of pairs.
        id_column: which column has the ids, texts or whole numbers. None: "id" if there is such a
            column, else an id is the number of the row, from 0, or of the line, empty ones counted.
        quotes: "csv" or "none", how those of TSV and CSV are read, see `engine.texts.tables`. None:
            CSV is RFC 4180, and TSV that looks quoted an error.
        skips_bad_rows: whether rows that are no texts are passed over.
        own_columns: names of the user's columns that are read beside the texts, of the file or of
            Hive's folders in its path.
    """

    path: Path | RemoteFile
    format: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    id_column: str | None = None
    quotes: str | None = None
    skips_bad_rows: bool = False
    own_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._refuse_pipes()
        if self.format is None and self._suffix not in SUFFIXES:
            raise InputError(
                f"--input {self.path}: its suffix says no format, expected one of "
                f"{sorted(SUFFIXES)}, compressed with {' or '.join(CODECS)} behind it. Say it: "
                f"--format, one of {list(FORMATS)}."
            )
        if self.format is not None and self.format not in FORMATS:
            raise InputError(f"--format: got {self.format!r}, expected one of {list(FORMATS)}.")
        if (self.kind in COLUMNAR or self._codec) and find_spec("pyarrow") is None:
            raise InputError(
                f"--input {self.path}: Parquet, Arrow and compressed files need pyarrow. Type: "
                f"{how_to_install('store')}"
            )
        if self.kind in COLUMNAR and self._codec is not None:
            raise InputError(
                f"--input {self.path}: is {self.kind.capitalize()} in {self._codec}, expected it "
                "as it is: what is in it can be compressed, and it is not read from end to end. "
                "Decompress it."
            )
        columns = (self.text_column, self.pair_column, self.id_column)
        if self.kind == "lines" and any(column is not None for column in columns):
            raise InputError(
                f"--input {self.path}: plain lines have no columns. Leave the options for columns "
                "out, or say --format tsv."
            )
        if self.quotes is not None and self.kind not in DELIMITERS:
            raise InputError(
                f"--quotes: got {self.quotes!r} for {self.kind}, expected it for TSV and CSV "
                "alone. Leave it out."
            )
        if self.pair_column is not None and self.text_column is None:
            raise InputError("--pair-column: expected --text-column, too: the first texts' column.")

    def _refuse_pipes(self) -> None:
        """A file is read more than once, which waits forever for what a pipe had."""
        if not isinstance(self.path, Path):
            return
        try:
            mode = self.path.stat().st_mode
        except OSError:  # reading it says why
            return
        if not stat.S_ISREG(mode):
            raise InputError(
                f"--input {self.path}: is not a regular file. Write the texts to a file first, and "
                "name that."
            )

    @property
    def _codec(self) -> str | None:
        """What the file is compressed with."""
        return CODECS.get(PurePosixPath(self.path.name).suffix.lower())

    @property
    def _suffix(self) -> str:
        """Without that of its compression."""
        name = PurePosixPath(self.path.name)
        return PurePosixPath(name.stem if self._codec else name).suffix.lower()

    @property
    def kind(self) -> str:
        """One of FORMATS."""
        return self.format or SUFFIXES[self._suffix]

    def absolute(self) -> TextFile:
        """The same file for processes that run in folders of their own."""
        return replace(self, path=self.path.absolute())

    @property
    def numbered_files(self) -> None:
        """See `TextInput`: of one file nothing need be said."""
        return

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """See `TextInput`, by which alone they are asked for."""
        return ()

    def _open(self) -> BinaryIO:
        if self._codec is None:
            return self.path.open("rb")
        return open_compressed(lambda: self.path.open("rb"), self._codec)

    def lines(self) -> list[str]:
        """All of its lines, see `lines_of`. Raises InputError if it cannot be read."""
        try:
            with self._open() as file:
                return lines_of(file.read())
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error

    def count(self) -> int:
        """Its rows, or for lines about as many. Raises InputError if it cannot be read."""
        try:
            if self.kind in COLUMNAR:
                with self._arrow_said():
                    return self._column_file.count()
            with self._open() as file:
                return sum(
                    block.count(b"\n") for block in iter(lambda: file.read(COUNT_BYTES), b"")
                )
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def ranges(self, rows: int) -> Iterator[Range]:
        """Cuts the file into ranges of so many rows. Raises InputError if it cannot be read."""
        if self.kind in COLUMNAR:
            total = self.count()
            for row in range(0, total, rows):
                yield Range(row, min(rows, total - row))
            return
        first = 1 if self.kind in DELIMITERS else 0
        start = position = records = 0
        try:
            with self._open() as file:
                for number, record in enumerate(self._cut(file)):
                    if number < first:
                        start = position + len(record)
                    position += len(record)
                    records = number + 1 - first
                    if records > 0 and records % rows == 0:
                        yield Range(first + records - rows, rows, start)
                        start = position
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        if records > 0 and records % rows:
            yield Range(first + records - records % rows, records % rows, start)

    def _cut(self, file: BinaryIO) -> Iterator[bytes]:
        """Records of TSV and CSV, else lines."""
        return iter(file) if self._dialect is None else self._dialect.records(file)

    @cached_property
    def _dialect(self) -> Dialect | None:
        """None for what is neither TSV nor CSV. Raises InputError for TSV that looks quoted."""
        if self.kind not in DELIMITERS:
            return None
        with self._open() as file:
            return choose_dialect(file, self.kind, self.quotes, f"--input {self.path}")

    def rows(
        self, within: Range | None = None, on_bad: OnBad = lambda path, row: None
    ) -> Iterator[tuple[str, Text]]:
        """(id, text) in the file's order, read as they are asked for; empty lines are left out.

        Args:
            within: None for the whole file.
            on_bad: called with each bad row that is passed over.

        Raises InputError for rows without a text or an id, with their number, unless bad rows are
        passed over; for a bad record of several lines in any case.
        """
        for own_id, text, _ in self.full_rows(within, on_bad):
            yield own_id, text

    def full_rows(
        self, within: Range | None = None, on_bad: OnBad = lambda path, row: None
    ) -> Iterator[Row]:
        """As `rows`, with the user's own columns."""
        for _, row in self.numbered_rows(within):
            if isinstance(row, BadRow):
                on_bad(self.path, row)
            elif row is not None:
                yield row

    def numbered_rows(self, within: Range | None = None) -> Iterator[Numbered]:
        """As `rows`, with each row's number, None in place of an empty line, and bad rows in their
        places."""
        columns = self.columns
        raw = self._batches if self.kind in COLUMNAR else self._raw_rows
        makers: dict[str, Callable[[int, Columns, Any], Row | None]] = {
            "lines": self._of_line,
            "tsv": self._of_record,
            "csv": self._of_record,
            "jsonl": self._of_json,
            "parquet": self._of_columns,
            "arrow": self._of_columns,
        }
        make = makers[self.kind]
        try:
            for number, found in raw(columns, within):
                try:
                    row = make(number, columns, found)
                except (InputError, UnicodeDecodeError) as error:
                    if not self.skips_bad_rows or self._may_hide_rows(found):
                        raise
                    reason = str(error).removeprefix(f"--input {self.path}: ")
                    yield number, BadRow(number, reason)
                else:
                    yield number, row
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error

    def _may_hide_rows(self, found: Any) -> bool:
        """Whether a record that is wrong has several lines: a quote that is not closed takes all
        that is behind it, which is not one bad row."""
        is_quoted = self._dialect is not None and self._dialect.is_quoted
        return is_quoted and b"\n" in found.rstrip(b"\r\n")

    @property
    def is_empty(self) -> bool:
        """Whether it has no row, nor in TSV and CSV a header. Raises InputError."""
        try:
            if self.kind in COLUMNAR:
                with self._arrow_said():
                    return self._column_file.is_empty()
            if self.kind == "jsonl":
                return self._names is None
            return next(self._records(None), None) is None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error

    @cached_property
    def column_kinds(self) -> tuple[str | None, str | None, str | None]:
        """What the schema says of each of the columns: "texts", "whole numbers", or another type.

        None where there is no column or no schema, or all of a column is null.
        """
        if self.kind not in COLUMNAR:
            return None, None, None
        names, types = self._footer
        first, second, own_id = (
            None if name is None else kind_of(types[names.index(name)]) for name in self.columns
        )
        return first, second, own_id

    @cached_property
    def own_kinds(self) -> dict[str, Kinds]:
        """What there is of the user's own columns, by name; JSON lines are read to their end.

        Raises InputError for a column that is there twice, and what `rows` raises.
        """
        own = self._own
        if not own.names:
            return {}
        if self.kind != "jsonl":
            types = self._footer.types if self.kind in COLUMNAR else None
            return own.kinds_of_schema(self._names or [], types)
        found = own.kinds_of_partitions()
        try:
            for row, line in self._records(None):
                try:
                    said = self._object(row, line)
                    if said is not None:
                        self._of_object(row, self.columns, said)  # a bad row's do not count
                        own.add_kinds(found, row, said)
                except (InputError, UnicodeDecodeError):
                    if not self.skips_bad_rows:
                        raise
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        return {**found}

    @cached_property
    def _own(self) -> OwnColumns:
        return OwnColumns(str(self.path), self.own_columns)

    @cached_property  # asked for by every range
    def columns(self) -> Columns:
        """What the file's first row, header or schema decides for all of it.

        No column of ids: an id is the number of its row. Raises InputError if a column is not
        there, or there twice.
        """
        names = self._names
        first, second, own_id = self.text_column or TEXT, self.pair_column, self.id_column
        if names is None:
            return first, second, own_id
        if self.text_column is None and TEXT not in names and set(PAIR) <= set(names):
            first, second = PAIR
        if own_id is None and ID in names:
            own_id = ID
        for name in (first, second, own_id):
            if name is not None and names.count(name) != 1:
                found = "more than one column" if name in names else "no column"
                raise InputError(
                    f"--input {self.path}: {found} {name!r}, got {names}. Say which: "
                    "--text-column, --pair-column, --id-column."
                )
        return first, second, own_id

    @cached_property
    def _names(self) -> list[str] | None:
        """Names of the columns that there are; None for plain lines, and where no row says it."""
        try:
            if self.kind in COLUMNAR:
                return self._footer.names
            if self._dialect is not None:
                number, header = next(self._records(None), (0, b""))
                return self._cells(number, decode(header, is_first=True))
            if self.kind == "jsonl":
                return self._names_of_objects()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        return None

    def _names_of_objects(self) -> list[str] | None:
        """Those of the first row, bad ones passed over where they are."""
        for number, line in self._records(None):
            try:
                found = self._object(number, line)
            except (InputError, UnicodeDecodeError):
                if not self.skips_bad_rows:
                    raise
                continue
            if found is not None:
                return list(found)
        return None

    def _records(self, within: Range | None) -> Iterator[tuple[int, bytes]]:
        """Lines with their numbers; of TSV and CSV, records, the header being 0."""
        with self._open() as file:
            file.seek(0 if within is None else within.start)
            records = enumerate(self._cut(file), 0 if within is None else within.row)
            yield from islice(records, None if within is None else within.count)

    def _raw_rows(self, columns: Columns, within: Range | None) -> Iterator[tuple[int, bytes]]:
        """As they are in the file, with their numbers, which leave out a header."""
        headers = 0 if self._dialect is None else 1
        for number, record in self._records(within):
            if number >= headers:
                yield number - headers, record

    def _of_line(self, row: int, columns: Columns, line: bytes) -> Row | None:
        text = decode(line, is_first=row == 0)
        return (str(row), text, self._own.values({})) if text.strip() else None

    def _of_record(self, row: int, columns: Columns, record: bytes) -> Row | None:
        text = decode(record, is_first=False)
        if not text.strip():
            return None
        header, cells = self._names or [], self._cells(row + 1, text)
        if len(cells) != len(header):
            raise InputError(
                f"--input {self.path}: {self._place(row + 1)} has {len(cells)} columns, "
                f"expected {len(header)} as in the first line."
            )
        values = [None if at is None else cells[at] for at in self._places]
        said = dict(zip(header, cells, strict=True)) if self.own_columns else {}
        return *self._as_row(row, columns, values), self._own.values(said)

    @cached_property
    def _places(self) -> list[int | None]:
        """Where in the header each of the columns is."""
        header = self._names or []
        return [None if name is None else header.index(name) for name in self.columns]

    def _cells(self, number: int, record: str) -> list[str]:
        assert self._dialect is not None
        try:
            return self._dialect.cells(record)
        except ValueError as error:
            raise InputError(
                f"--input {self.path}: {self._place(number)}: {error}. Correct it, or say --quotes "
                "none if quotes are characters like any other."
            ) from error

    def _place(self, number: int) -> str:
        """What to call a record in errors: with quotes it may have begun in any line."""
        if self._dialect is not None and self._dialect.is_quoted:
            return f"row {number - 1}" if number else "the header"
        return f"line {number + 1}"

    def _of_json(self, row: int, columns: Columns, line: bytes) -> Row | None:
        found = self._object(row, line)
        return None if found is None else self._of_object(row, columns, found)

    def _of_object(self, row: int, columns: Columns, found: dict[str, Any]) -> Row:
        if columns[2] is None and ID in found:
            raise InputError(
                f"--input {self.path}: row {row} has an {ID!r}, which the first row has "
                "not, expected one in all rows or in none."
            )
        values = [None if n is None else found.get(n) for n in columns]
        self._own.kinds_in(row, found)
        return *self._as_row(row, columns, values), self._own.values(found)

    def _object(self, row: int, line: bytes) -> dict[str, Any] | None:
        """Of a line; None of an empty one."""
        text = decode(line, is_first=row == 0)
        if not text.strip():
            return None
        try:
            return object_of(text)
        except ValueError as error:
            raise InputError(
                f"--input {self.path}: line {row + 1} is not a JSON object ({error})."
            ) from error

    @property
    def _column_file(self) -> ColumnFile:
        return ColumnFile(self.path, self.kind)

    @cached_property
    def _footer(self) -> Footer:
        """Raises InputError for what is neither Parquet nor Arrow."""
        with self._arrow_said():
            return self._column_file.footer()

    def _batches(self, columns: Columns, within: Range | None) -> Iterator[tuple[int, Any]]:
        """Values of the columns, and the user's own, with the rows' numbers."""
        part = None if within is None else (within.row, within.row + within.count)
        with self._arrow_said():
            yield from self._column_file.rows(columns, part, self.own_columns, self._own.partitions)

    def _of_columns(self, row: int, columns: Columns, found: tuple[Sequence[Any], Any]) -> Row:
        values, own = found
        if isinstance(own, Exception):
            raise InputError(
                f"--input {self.path}: row {row} has a value that no other program can read "
                f"({own}), expected the columns {list(self.own_columns)} to be whole. Write the "
                "file again, or leave the column out of --columns."
            )
        return *self._as_row(row, columns, values), own

    @contextmanager
    def _arrow_said(self) -> Iterator[None]:
        """Raises InputError for what Arrow raises."""
        from pyarrow import ArrowException

        try:
            yield
        except ArrowException as error:
            raise self._unreadable(error) from error

    def _as_row(self, row: int, columns: Columns, values: Sequence[Any]) -> tuple[str, Text]:
        for name, value, is_id in zip(columns, values, (False, False, True), strict=True):
            is_number = is_id and isinstance(value, int) and not isinstance(value, bool)
            if name is not None and not is_number and not is_text(value):
                expected = "an id: a text or a whole number" if is_id else "a text"
                raise InputError(
                    f"--input {self.path}: row {row} has {value!r:.60} in column {name!r}, "
                    f"expected {expected}."
                )
        first, second, own_id = values
        text = first if columns[1] is None else (first, second)
        return str(row if columns[2] is None else own_id), text

    def _unreadable(self, error: Exception) -> InputError:
        packed = "" if self._codec is None else f", all of it in {self._codec}"
        return InputError(
            f"--input {self.path}: cannot be read ({error}). Expected {self.kind} in UTF-8{packed}."
        )


def lines_of(content: bytes, errors: str = "strict") -> list[str]:
    """The lines of UTF-8 text, as plain lines are read everywhere; a byte order mark is none of it.

    Only "\\n" and "\\r\\n" end a line: texts may have what else str.splitlines takes for an end.
    Raises UnicodeDecodeError.

    Args:
        errors: as of `bytes.decode`.
    """
    text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors)
    return [line.rstrip("\r") for line in text.split("\n")]


def object_of(line: str) -> dict[str, Any]:
    """The object that a line of JSON lines is. Raises ValueError for anything else."""
    try:
        found = json.loads(line)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def is_text(value: Any) -> bool:
    """Whether it is a string of whole characters: JSON can have halves of some, lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
