"""TSV and CSV: what other programs write is read as it was, and what could be either is refused."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import polars
import pytest

from bitheads.engine.errors import InputError
from bitheads.engine.texts import tables
from bitheads.engine.texts.tables import read_table
from bitheads.engine.texts.text_files import TextFile
from bitheads.engine.types import Text

PIECES = ["word", '"', '""', "\t", ",", "\n", "\r\n", " ", "", "é☃", "\x00", "\\", "'"]


def drawn_texts(seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(PIECES, k=draw.randrange(7))) + "." for _ in range(60)]


def rows_of(file: TextFile) -> list[tuple[str, Text]]:
    """Read whole; in ranges, as many workers do, they must be the same."""
    rows = list(file.rows())
    for count in (1, 7, 1000):
        ranges = list(file.ranges(count))
        assert [row for within in ranges for row in file.rows(within)] == rows
    return rows


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_csv_writers_write_is_read(
    tmp_path: Path, suffix: str, quoting: int, line_end: str, encoding: str
) -> None:
    texts = drawn_texts(quoting)
    path = tmp_path / f"texts.{suffix}"
    with path.open("w", encoding=encoding, newline="") as file:
        delimiter = "\t" if suffix == "tsv" else ","
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
        writer.writerows([("key", "text"), *((f"k{i}", text) for i, text in enumerate(texts))])
    quotes = "csv" if suffix == "tsv" else None
    expected = list(enumerate(texts))
    assert rows_of(TextFile(path, quotes=quotes)) == [(str(i), text) for i, text in expected]
    named = rows_of(TextFile(path, id_column="key", quotes=quotes))
    assert named == [(f"k{i}", text) for i, text in expected]
    table = read_table(path, quotes)
    assert [row.cells for row in table.rows] == [[f"k{i}", text] for i, text in expected]
    lines = path.read_bytes().split(b"\n")
    assert all(lines[row.line - 1].lstrip(b'"').startswith(b"k") for row in table.rows)
    if suffix == "tsv":
        with pytest.raises(InputError, match=r"line \d+ has the cell .*--quotes csv"):
            list(TextFile(path).rows())


def test_what_polars_writes_is_read(tmp_path: Path) -> None:
    texts = drawn_texts(9)
    path = tmp_path / "texts.csv"
    polars.DataFrame({"id": list(range(60)), "text": texts}).write_csv(path)
    assert rows_of(TextFile(path)) == [(str(i), text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('id\ttext\n1\tplain\n2\t"She said ""yes"", then left"\n', "line 3"),
        # A quoted row among plain ones is still no plain text.
        ('id\ttext\n1\tShe said "yes"\n2\t"She said ""yes"", then left"\n', "line 3"),
        ('id\ttext\n1\t"first\nsecond"\n', "line 2"),
        ('id\ttext\n1\t"a\ttab"\n', "line 2"),
        ('"id"\t"text"\n"1"\t"Great movie"\n', "line 1"),
        ('id\ttext\n1\t"Great movie"\n2\tbad\n', "line 2"),
        ('\ufefftext\r\n"Great movie"\r\n', "line 2"),
        ('text\n""\n', "line 2"),
    ],
)
def test_tsv_that_looks_quoted_is_refused(tmp_path: Path, content: str, place: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(content, encoding="utf-8", newline="")
    for read in (read_table, lambda path: list(TextFile(path).rows())):
        with pytest.raises(InputError, match=f"a.tsv: {place} has the cell .*--quotes none, if"):
            read(path)
    with pytest.raises(InputError, match=r'Say how to read the file: quotes\.a = "csv", if'):
        read_table(path, option='quotes.a = "{}"')


@pytest.mark.parametrize(
    "texts",
    [
        ['"Great movie"', 'She said "yes"'],
        ['"Oh no," she said', '"Great movie"'],
        ['"never closed', "x"],
        ["6'2\" tall", '"Great" and "good"'],
        ['ends with ""', '"'],
        ['""', 'She said "yes"'],
        ['"twice ""so"" he said', '"x'],
    ],
)
def test_quotes_of_plain_tsv_are_text(tmp_path: Path, texts: list[str]) -> None:
    """Each file has a quote that no program that quotes would have written so."""
    path = tmp_path / "a.tsv"
    path.write_text("\n".join(["n\ttext", *(f"{i}\t{t}" for i, t in enumerate(texts))]))
    assert [text for _, text in rows_of(TextFile(path))] == texts
    assert [row.cells[1] for row in read_table(path).rows] == texts


@pytest.mark.parametrize(("quotes", "text"), [("csv", 'a "b"'), ("none", '"a ""b"""')])
def test_both_readings_can_be_asked_for(tmp_path: Path, quotes: str, text: str) -> None:
    for name, delimiter in (("a.tsv", "\t"), ("a.csv", ",")):
        path = tmp_path / name
        path.write_text(f'id{delimiter}text\nk{delimiter}"a ""b"""\n')
        assert rows_of(TextFile(path, quotes=quotes)) == [("k", text)]
        assert read_table(path, quotes).rows == [(2, ["k", text])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id,text\nk,"a"b"', r"""row 0: cell 2 \('"a"b"'\) begins with a quote, but is"""),
        ('id,text\nk,x\nl,"a" b', r"""row 1: cell 2 \('"a" b'\) begins with a quote, but is"""),
        ('id,text\nk,x\nl,"never closed\nm,y\n', r"row 1: cell 2 .* begins with a quote"),
        ('"id,text\nk,x', "the header: cell 1"),
        ('\ufeff"i\nd",text\nk,x,y', "row 0 has 3 columns, expected 2"),
        ("id,text\nk,x\nl,x,y", "row 1 has 3 columns, expected 2"),
    ],
)
def test_csv_that_is_not_rfc_4180(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        list(TextFile(path).rows())
    with pytest.raises(InputError, match=r"a\.csv, line \d: "):
        read_table(path)


def test_records_are_those_of_pythons_csv_module() -> None:
    draw = random.Random(1)
    dialect = tables.Dialect(",", is_quoted=True)
    refused = 0
    for _ in range(5000):
        pieces = draw.choices(['"', '"', ",", "\n", "a", "\r\n", " "], k=draw.randrange(14))
        content = "".join(pieces)
        records = dialect.records(io.BytesIO(content.encode()))
        try:
            expected = list(csv.reader(io.StringIO(content, newline=""), strict=True))
        except csv.Error:
            refused += 1
            with pytest.raises(ValueError, match="begins with a quote"):
                [dialect.cells(tables.decode(record, False)) for record in records]
            continue
        found = [dialect.cells(tables.decode(record, False)) for record in records]
        assert found == [cells or [""] for cells in expected], content
    assert 1000 < refused < 4000


def test_a_quote_amid_a_cell_is_text(tmp_path: Path) -> None:
    """Also an odd number of them, which opens nothing."""
    texts = ["6'2\" tall", 'She said "yes"', 'and "so"\non', ' "x', 'ends "', "plain"]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        path = tmp_path / name
        cells = ["text", *texts[:2], '"and ""so""\non"', *texts[3:]]
        path.write_text("".join(f"{cell}{delimiter}{i}\n" for i, cell in enumerate(cells)))
        file = TextFile(path, quotes="csv", id_column="0")
        assert rows_of(file) == [(str(i), text) for i, text in enumerate(texts, 1)]


def test_a_quote_that_is_not_closed_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RECORD_BYTES", 1000)
    path = tmp_path / "a.csv"
    path.write_text('text\n"open\n' + "a line\n" * 10000)
    with path.open("rb") as file:
        assert max(map(len, tables.Dialect(",", True).records(file))) < 2000
    with pytest.raises(InputError, match=r"row 0: cell 1 .* begins with a quote"):
        list(TextFile(path).rows())


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\nx\n")
    with pytest.raises(InputError, match=r"--quotes: got 'double', expected one of"):
        list(TextFile(path, quotes="double").rows())
    with pytest.raises(InputError, match="--quotes: got 'csv' for jsonl, expected it for TSV"):
        TextFile(tmp_path / "a.jsonl", quotes="csv")
