"""Texts with ids from files: plain lines, TSV, JSON lines, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.types import Text

FORMATS = ("lines", "tsv", "jsonl", "parquet")
SUFFIXES = {
    ".txt": "lines",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
ID, TEXT, PAIR = "id", "text", ("text_a", "text_b")
COUNT_BYTES = 1 << 20
BATCH_ROWS = 1024


@dataclass(frozen=True)
class Range:
    """Some rows of a file, for one of several readers.

    Attributes:
        row: number of its first row; of its first line in files of lines.
        count: rows, or lines.
        start: of its first line, in bytes; 0 in Parquet.
    """

    row: int
    count: int
    start: int = 0


@dataclass(frozen=True)
class TextFile:
    """A file of texts.

    Attributes:
        path: where it is.
        format: one of FORMATS; None: its suffix says it.
        text_column: which column has the texts. None: "text", or "text_a" and "text_b" for pairs.
            Plain lines have no columns.
        pair_column: which column has the second texts of pairs.
        id_column: which column has the ids. None: "id" if there is such a column, else an id is
            the number of the row, from 0, or of the line, empty ones counted.
    """

    path: Path
    format: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    id_column: str | None = None

    def __post_init__(self) -> None:
        if self.format is None and self.path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"--input {self.path}: its suffix says no format, expected one of "
                f"{sorted(SUFFIXES)}. Say it: --format, one of {list(FORMATS)}."
            )
        if self.format is not None and self.format not in FORMATS:
            raise InputError(f"--format: got {self.format!r}, expected one of {list(FORMATS)}.")
        columns = (self.text_column, self.pair_column, self.id_column)
        if self._format == "lines" and any(column is not None for column in columns):
            raise InputError(
                f"--input {self.path}: plain lines have no columns. Leave the options for columns "
                "out, or say --format tsv."
            )
        if self.pair_column is not None and self.text_column is None:
            raise InputError("--pair-column: expected --text-column, too: the first texts' column.")

    @property
    def _format(self) -> str:
        return self.format or SUFFIXES[self.path.suffix.lower()]

    def count(self) -> int:
        """Its rows, or for lines about as many. Raises InputError if it cannot be read."""
        try:
            if self._format == "parquet":
                import pyarrow.parquet as pq

                return int(pq.read_metadata(self.path).num_rows)
            with self.path.open("rb") as file:
                return sum(
                    block.count(b"\n") for block in iter(lambda: file.read(COUNT_BYTES), b"")
                )
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def ranges(self, rows: int) -> Iterator[Range]:
        """Cuts the file into ranges of so many rows. Raises InputError if it cannot be read."""
        if self._format == "parquet":
            total = self.count()
            for row in range(0, total, rows):
                yield Range(row, min(rows, total - row))
            return
        first = 1 if self._format == "tsv" else 0
        start = position = lines = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file):
                    if number < first:
                        start = position + len(line)
                    position += len(line)
                    lines = number + 1 - first
                    if lines > 0 and lines % rows == 0:
                        yield Range(first + lines - rows, rows, start)
                        start = position
        except OSError as error:
            raise self._unreadable(error) from error
        if lines > 0 and lines % rows:
            yield Range(first + lines - lines % rows, lines % rows, start)

    def rows(self, within: Range | None = None) -> Iterator[tuple[str, Text]]:
        """(id, text) in the file's order, read as they are asked for; empty lines are left out.

        Args:
            within: None for the whole file.

        Raises InputError for rows that hold no text, with their number.
        """
        read = {
            "lines": self._lines,
            "tsv": self._tsv,
            "jsonl": self._jsonl,
            "parquet": self._parquet,
        }[self._format]
        try:
            yield from read(within)
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error

    def _numbered_lines(self, within: Range | None) -> Iterator[tuple[int, str]]:
        with self.path.open("rb") as file:
            file.seek(0 if within is None else within.start)
            lines = enumerate(file, 0 if within is None else within.row)
            for number, line in islice(lines, None if within is None else within.count):
                yield number, line.decode("utf-8").rstrip("\n").rstrip("\r")

    def _lines(self, within: Range | None) -> Iterator[tuple[str, Text]]:
        for number, line in self._numbered_lines(within):
            if line.strip():
                yield str(number), line

    def _tsv(self, within: Range | None) -> Iterator[tuple[str, Text]]:
        lines = self._numbered_lines(None)
        header = next(lines, (0, ""))[1].split("\t")
        names = self._columns(header)
        places = [None if name is None else header.index(name) for name in names]
        for number, line in lines if within is None else self._numbered_lines(within):
            if not line.strip():
                continue
            cells = line.split("\t")
            if len(cells) != len(header):
                raise InputError(
                    f"--input {self.path}: line {number + 1} has {len(cells)} columns, expected "
                    f"{len(header)} as in the first line."
                )
            yield self._as_row(number - 1, *(None if at is None else cells[at] for at in places))

    def _jsonl(self, within: Range | None) -> Iterator[tuple[str, Text]]:
        names: tuple[str, str | None, str | None] | None = None
        for number, line in self._numbered_lines(within):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"--input {self.path}: line {number + 1} is no JSON object ({error})."
                ) from error
            names = names or self._columns(list(found))
            yield self._as_row(
                number, *(None if name is None else found.get(name) for name in names)
            )

    def _parquet(self, within: Range | None) -> Iterator[tuple[str, Text]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self.path)
            names = self._columns(file.schema_arrow.names)
            wanted = [name for name in names if name is not None]
            first = 0 if within is None else within.row
            last = file.metadata.num_rows if within is None else within.row + within.count
            row = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                row += rows
                if row <= first or row - rows >= last:
                    continue
                at = row - rows
                for batch in file.iter_batches(BATCH_ROWS, [group], wanted):
                    nothing = [None] * len(batch)
                    lists = [nothing if n is None else batch.column(n).to_pylist() for n in names]
                    for number, values in enumerate(zip(*lists, strict=True), at):
                        if first <= number < last:
                            yield self._as_row(number, *values)
                    at += len(batch)
        except pa.ArrowException as error:
            raise self._unreadable(error) from error

    def _columns(self, names: list[str]) -> tuple[str, str | None, str | None]:
        """Names of the columns of first texts, second texts and ids."""
        first, second, own_id = self.text_column, self.pair_column, self.id_column
        if first is None:
            first = TEXT
            if TEXT not in names and set(PAIR) <= set(names):
                first, second = PAIR
        if own_id is None and ID in names:
            own_id = ID
        for name in (first, second, own_id):
            if name is not None and name not in names:
                raise InputError(
                    f"--input {self.path}: no column {name!r}, got {names}. Say which: "
                    "--text-column, --pair-column, --id-column."
                )
        return first, second, own_id

    def _as_row(
        self, row: int, first: Any, second: Any = None, own_id: Any = None
    ) -> tuple[str, Text]:
        names = self.pair_column or PAIR[1], self.text_column or TEXT
        for name, value in zip(names, (second, first), strict=True):
            if not isinstance(value, str) and not (value is None and value is second):
                raise InputError(
                    f"--input {self.path}: row {row} has {value!r} in column {name!r}, expected a "
                    "text."
                )
        if self.id_column is not None and own_id is None:
            raise InputError(f"--input {self.path}: row {row} has no id. Give it one.")
        shown_id = str(row) if own_id is None else str(own_id)
        return shown_id, first if second is None else (first, second)

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"--input {self.path}: cannot be read ({error}). Expected {self._format} in UTF-8."
        )
