"""Delimited text, TSV and CSV: which quotes belong to the texts, and which to the file.

In plain TSV a cell is what lies between two tabs, quotes and all. pandas, Excel and Python's csv
write cells in quotes, double the quotes in them, and may then have tabs and line ends in them
(RFC 4180). No file says which it is, and read the wrong way its texts are others. So `.csv` is
read as RFC 4180, and TSV as plain text, but not if it looks quoted: that is an error until
`quotes` says how to read it. A file looks quoted if

- a cell is in quotes and has doubled quotes in it, as in `"She said ""yes"" twice"`; or
- a cell is in quotes, and the whole file can be read as RFC 4180, each row with as many cells as
  the first. So it cannot be told from one that was written with quotes. One quote within a cell
  that is not in quotes, as in `She said "yes"`, says that it was not.

Where quotes are the file's, one within a cell that does not begin with one is a character of the
text, as it is to pandas and Excel; text behind a closing quote, and a quote that is never closed,
are errors. Python's csv module is not used: it does not say where a record begins, and it limits
cells by a number that is the whole process's.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bitheads.engine.errors import InputError

QUOTES = ("csv", "none")
"""How quotes can be read: as in RFC 4180, or as characters like any other."""

QUOTES_HELP = (
    "of TSV and CSV. csv: cells may be in quotes, which are no part of the text, with quotes in "
    "them doubled (RFC 4180); none: quotes are characters like any other (default: csv for CSV; "
    "for TSV none, but a file that looks quoted is an error)"
)
QUOTES_OPTION = "--quotes {}"
DELIMITERS = {"csv": ",", "tsv": "\t"}
RECORD_BYTES = 1 << 28
"""Bytes of a record in several lines, at most: more is a quote that was not closed, and must not
fill memory."""

QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
CLOSED = re.compile(rb'[^"]*(?:""[^"]*)*"(?!")')


@dataclass(frozen=True)
class Dialect:
    """How a file is cut into records, and those into cells.

    Attributes:
        delimiter: one character.
        is_quoted: whether cells may be in quotes.
    """

    delimiter: str
    is_quoted: bool

    def records(self, file: BinaryIO) -> Iterator[bytes]:
        """Records with their line ends, from where the file stands; some have several of them."""
        if not self.is_quoted:
            yield from iter(file.readline, b"")  # `yield from file` would close it, if not read on
            return
        lines: list[bytes] = []
        num_bytes, is_open = 0, False
        mark = b"" if file.tell() else codecs.BOM_UTF8  # before the first cell's quote
        for line in iter(file.readline, b""):
            is_open = self._ends_open(line.removeprefix(mark), is_open)
            mark = b""
            if not is_open and not lines:
                yield line
                continue
            lines.append(line)
            num_bytes += len(line)
            if not is_open or num_bytes > RECORD_BYTES:
                yield b"".join(lines)
                lines, num_bytes, is_open = [], 0, False
        if lines:
            yield b"".join(lines)

    def _ends_open(self, line: bytes, is_open: bool) -> bool:
        """Whether a cell in quotes goes on in the next line.

        Args:
            is_open: whether one goes on in this line.
        """
        if b'"' not in line:
            return is_open
        at = 0
        while True:
            if is_open or line[at : at + 1] == b'"':
                closed = CLOSED.match(line, at if is_open else at + 1)
                if closed is None:
                    return True
                at = closed.end()
            is_open = False
            at = line.find(self.delimiter.encode(), at) + 1
            if at == 0:
                return False

    def cells(self, record: str, is_strict: bool = False) -> list[str]:
        """The cells of a record that is given without its line end.

        Args:
            is_strict: refuse quotes in a cell that does not begin with one, which RFC 4180 does.

        Raises ValueError for a cell in quotes that goes on behind them, or is not closed.
        """
        if not self.is_quoted or '"' not in record:
            return record.split(self.delimiter)
        cells: list[str] = []
        at = 0
        while True:
            if quoted := QUOTED.match(record, at):
                cells.append(quoted[1].replace('""', '"'))
                end = quoted.end()
            else:
                end = record.find(self.delimiter, at)
                end = len(record) if end < 0 else end
                cells.append(record[at:end])
            is_whole = end == len(record) or record[end] == self.delimiter
            has_quote = not quoted and '"' in cells[-1]
            if not is_whole or (has_quote and (is_strict or cells[-1][0] == '"')):
                raise ValueError(
                    f"cell {len(cells)} ({record[at : at + 40]!r}) begins with a quote, but is not "
                    "in quotes from end to end with those within it doubled"
                )
            if end == len(record):
                return cells
            at = end + 1


def decode(record: bytes, is_first: bool) -> str:
    """Without line end, and byte order mark. Raises UnicodeDecodeError."""
    if is_first:
        record = record.removeprefix(codecs.BOM_UTF8)
    return record.decode("utf-8").rstrip("\n").rstrip("\r")


def choose_dialect(
    file: BinaryIO, kind: str, quotes: str | None, shown: str, option: str = QUOTES_OPTION
) -> Dialect:
    """How to read a file, which is read to its end for that and is then where it began.

    Args:
        kind: "csv" or "tsv".
        quotes: one of QUOTES, None: not said.
        shown: the file's name in errors.
        option: what says it, with {} for the value.

    Raises InputError for a TSV file that looks quoted, and for other values of `quotes`.
    """
    if quotes is not None and quotes not in QUOTES:
        raise InputError(
            f"{option.format('').rstrip()}: got {quotes!r}, expected one of {list(QUOTES)}."
        )
    if quotes is not None or kind == "csv":
        return Dialect(DELIMITERS[kind], quotes != "none")
    start = file.tell()
    found = _looks_quoted(file, start)
    file.seek(start)
    if found is not None:
        line, cell = found
        raise InputError(
            f"{shown}: line {line} has the cell {_shorten(cell)}, which is in quotes as pandas, "
            "Excel and others write cells, and plain TSV has no such quotes. Say how to read the "
            f"file: {option.format('csv')}, if they are no part of the text, or "
            f"{option.format('none')}, if they are."
        )
    return Dialect(DELIMITERS[kind], is_quoted=False)


def _looks_quoted(file: BinaryIO, start: int) -> tuple[int, str] | None:
    """The first line and cell to show for it, None if it does not."""
    has_quotes = False
    plain = Dialect("\t", is_quoted=False)
    for line, record in enumerate(plain.records(file), 1):
        if b'"' not in record:
            continue
        has_quotes = True
        for cell in plain.cells(decode(record, line == 1)):
            quoted = QUOTED.fullmatch(cell)
            if quoted and '"' in quoted[1]:
                return line, cell
    if not has_quotes:
        return None
    file.seek(start)
    quoting = Dialect("\t", is_quoted=True)
    found, columns, line = None, None, 1
    for number, record in enumerate(quoting.records(file)):
        text = decode(record, number == 0)
        try:
            count = len(quoting.cells(text, is_strict=True))
        except ValueError:
            return None
        columns = columns or count
        if count != columns and text.strip():
            return None
        if found is None and '"' in text:
            found = line, next(cell for cell in text.split("\t") if '"' in cell)
        line += record.count(b"\n")
    return found


class Row(NamedTuple):
    """A row below the header.

    Attributes:
        line: of the file, from 1, where it begins.
        cells: as many as the header has.
    """

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A whole file in memory.

    Attributes:
        header: the first row.
        sha256: of the file's bytes.
    """

    path: Path
    header: tuple[str, ...]
    rows: list[Row]
    sha256: str


def read_table(
    path: Path,
    quotes: str | None = None,
    option: str = QUOTES_OPTION,
    expected: str = "a table",
    check_header: Callable[[tuple[str, ...]], None] = lambda header: None,
) -> Table:
    """Reads a UTF-8 file: CSV if its suffix is .csv, else TSV.

    Args:
        quotes, option: see `choose_dialect`.
        expected: what to name where the file cannot be read.
        check_header: called before the rows are read; () is that of an empty file.

    Raises InputError, with the line, for what is not UTF-8, for quotes that are not right, and for
    rows of other columns than the header's; and what `check_header` raises.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Name {expected}, TSV or CSV in UTF-8."
        ) from error
    return table_of(path, data, quotes, option, check_header)


def table_of(
    path: Path,
    data: bytes,
    quotes: str | None = None,
    option: str = QUOTES_OPTION,
    check_header: Callable[[tuple[str, ...]], None] = lambda header: None,
) -> Table:
    """As `read_table`, of a file that was read: `data` is its bytes."""
    kind = "csv" if path.suffix.lower() == ".csv" else "tsv"
    check_utf8(path, data)
    dialect = choose_dialect(BytesIO(data), kind, quotes, str(path), option)
    if not data:
        check_header(())
    header: list[str] = []
    rows: list[Row] = []
    line = 1
    for record in dialect.records(BytesIO(data)):
        text = decode(record, line == 1)
        try:
            cells = dialect.cells(text)
        except ValueError as error:
            raise InputError(
                f"{path}, line {line}: {error}. Correct it, or say {option.format('none')} if "
                "quotes are characters like any other."
            ) from error
        if line == 1:
            header = cells
            check_header(tuple(header))
        if len(cells) != len(header):
            hint = (
                "Put cells with delimiters or line ends in quotes."
                if dialect.is_quoted
                else "Replace delimiters inside texts by spaces."
            )
            raise InputError(
                f"{path}, line {line}: got {len(cells)} columns, expected {len(header)} "
                f"({', '.join(header)}). {hint}"
            )
        if line > 1:
            rows.append(Row(line, cells))
        line += record.count(b"\n")
    return Table(path, tuple(header), rows, hashlib.sha256(data).hexdigest())


def check_utf8(path: Path, data: bytes) -> None:
    """Raises InputError, with the line, for bytes of a file that are not UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 ({error}). Convert the file.") from error


def _shorten(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:39]}…")
