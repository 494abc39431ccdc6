"""Files of background texts, sound and malformed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitheads.engine.errors import InputError
from bitheads.training.data.background import read_background
from bitheads.training.data.labelled_texts import read_labelled


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_texts_of_every_format(tmp_path: Path) -> None:
    texts = ["one", 'two "so"', " three "]
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "text": [*texts, ""]}), tmp_path / "a.parquet")
    files = [
        written(tmp_path / "a.txt", '\ufeffone\r\ntwo "so"\n\n \n three '),
        written(tmp_path / "a.tsv", 'text\none\ntwo "so"\n\n three \n'),
        written(tmp_path / "a.csv", 'n,text\n1,one\n2,"two ""so"""\n3," "\n4, three \n'),
        written(
            tmp_path / "a.jsonl", '{"text": "one"}\n{"text": "two \\"so\\""}\n{"text": " three "}'
        ),
        tmp_path / "a.parquet",
    ]
    for path in files:
        found = read_background(path)
        assert (found.texts, found.form) == (texts, "single"), path
    pairs = read_background(written(tmp_path / "b.csv", "text_a,text_b\nx,y\n,\nz,\n"))
    assert (pairs.texts, pairs.form) == ([("x", "y"), ("z", "")], "pair")


def test_the_training_file_can_be_told(tmp_path: Path) -> None:
    path = written(tmp_path / "train.tsv", "label\ttext\na\tx\nb\ty\n")
    copy = written(tmp_path / "copy.tsv", path.read_bytes())
    assert read_background(copy).sha256 == read_labelled(path).sha256
    lines = written(tmp_path / "a.txt", "x\ny")
    assert read_background(lines).sha256 != read_labelled(path).sha256


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "a.txt: has no texts"),
        ("a.txt", "\n \n", "a.txt: has no texts"),
        ("a.txt", b"x\n\xff\n", "a.txt, line 2: not UTF-8"),
        ("a.tsv", "text\n", "a.tsv: has no rows"),
        ("a.tsv", "text\n\n", "a.tsv: has no texts"),
        ("a.tsv", "some text\nmore\n", r"a.tsv, line 1: got the columns \['some text'\], expected"),
        ("a.csv", 'text\n"x\n', "a.csv, line 2: cell 1"),
        ("a.jsonl", '{"text": "x"}\n{"text": null}\n', "a.jsonl, line 2: got None in the column"),
        ("a.jsonl", '{"text": "x"}\n"y"\n', "a.jsonl, line 2: is not a JSON object"),
        ("a.parquet", "text\nx\n", "a.parquet: is no Parquet"),
    ],
)
def test_malformed(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_background(written(tmp_path / name, content))


def test_missing(tmp_path: Path) -> None:
    for name in ("a.txt", "a.tsv", "a.jsonl"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_background(tmp_path / name)


def test_quotes_hold_where_they_can(tmp_path: Path) -> None:
    table = written(tmp_path / "b.tsv", 'text\n"he said ""no"""\n')
    assert read_background(table, "csv").texts == ['he said "no"']
    assert read_background(table, "none").texts == ['"he said ""no"""']
    for name, content in (("b.jsonl", '{"text": "\\"a\\""}\n'), ("b.txt", '"a"\n')):
        assert read_background(written(tmp_path / name, content), "csv").texts == ['"a"']
