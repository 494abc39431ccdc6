"""`bitheads encode` of files in gzip and zstd: what was compressed, nothing of what is damaged."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from store_cases import contents
from tiny_encoders import corpus

from bitheads import InputError
from bitheads.engine.commands.encode import main
from bitheads.engine.files.compressed import open_compressed
from bitheads.engine.store import FeatureStore
from bitheads.engine.texts.text_files import TextFile
from bitheads.engine.texts.text_inputs import open_input

TEXTS = [*corpus()[:20], 'She said "yes",\nthen\r\nleft']
Run = Callable[..., int]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Run:
    def call(store: str, *options: object) -> int:
        fixed = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--store", tmp_path / store]
        return main([str(option) for option in (*fixed, *options)])

    return call


def compressed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as file:
        file.write(content)
    return bytes(out.getvalue())


def content_of(suffix: str) -> bytes:
    """The texts with ids in a format, with a byte order mark."""
    out = io.StringIO(newline="")
    if suffix == ".jsonl":
        out.writelines(json.dumps({"id": f"k{i}", "text": t}) + "\n" for i, t in enumerate(TEXTS))
    elif suffix == ".txt":
        out.writelines(f"{text}\n" for text in TEXTS[:20])
    else:
        writer = csv.writer(out, delimiter="\t" if suffix == ".tsv" else ",")
        writer.writerows([("id", "text"), *((f"k{i}", text) for i, text in enumerate(TEXTS))])
    return out.getvalue().encode("utf-8-sig")


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".csv", ".jsonl"])
def test_the_rows_are_those_of_the_plain_file(tmp_path: Path, suffix: str, packing: str) -> None:
    quotes = "csv" if suffix == ".tsv" else None
    plain = tmp_path / f"a{suffix}"
    plain.write_bytes(content_of(suffix))
    expected = list(TextFile(plain, quotes=quotes).rows())
    assert [text for _, text in expected] == TEXTS[: 20 if suffix == ".txt" else None]
    path = tmp_path / f"b{suffix}{packing}"
    content = content_of(suffix)
    # As logs are rotated: one archive behind the other is one file.
    path.write_bytes(compressed(content[:99], packing) + compressed(content[99:], packing))
    file = TextFile(path, quotes=quotes)
    assert list(file.rows()) == expected
    assert file.count() == TextFile(plain, quotes=quotes).count()
    for count in (1, 5, 100):
        ranges = list(file.ranges(count))
        found = [row for within in reversed(ranges) for row in reversed([*file.rows(within)])]
        assert found[::-1] == expected


def test_files_of_other_programs(run: Run, tmp_path: Path) -> None:
    """What DuckDB writes, in one folder with what gzip did and a part without a row."""
    folder = tmp_path / "in"
    folder.mkdir()
    database = duckdb.connect()
    database.sql("CREATE TABLE texts (id VARCHAR, text VARCHAR)")
    database.executemany(
        "INSERT INTO texts VALUES (?, ?)", [[f"k{i}", t] for i, t in enumerate(TEXTS)]
    )
    for name, where in (("a.csv.gz", "rowid < 7"), ("b.csv.zst", "rowid BETWEEN 7 AND 8")):
        database.sql(f"COPY (FROM texts WHERE {where}) TO '{folder / name}' (HEADER)")
    with gzip.open(folder / "c.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((f"k{i}", TEXTS[i]) for i in range(9, 21))])
    with gzip.open(folder / "d.csv.gz", "wb"):
        pass
    (tmp_path / "whole.csv").write_bytes(content_of(".csv"))
    assert run("one", "--input", tmp_path / "whole.csv") == 0
    assert run("many", "--input", folder, "--progress") == 0
    assert contents(FeatureStore(tmp_path / "many")) == contents(FeatureStore(tmp_path / "one"))


def test_a_format_that_is_said(tmp_path: Path) -> None:
    """Spark's suffix of JSON lines is that of JSON."""
    (tmp_path / "part-00000-3b.json.gz").write_bytes(gzip.compress(b'{"text": "x"}'))
    (tmp_path / "part-00001-3b.json").write_bytes(b'{"text": "y"}')
    with pytest.raises(InputError, match="its suffix says no format"):
        open_input([str(tmp_path)])
    assert [*open_input([str(tmp_path)], "jsonl").rows()] == [("0", "x"), ("1", "y")]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_damaged_archives(
    run: Run, tmp_path: Path, packing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(f'{{"text": "{text}"}}\n' for text in map(str, range(2000))).encode()
    whole = compressed(lines, packing)
    path = tmp_path / f"a.jsonl{packing}"
    for content in (
        whole[: len(whole) // 2],
        whole[:-1],
        whole[:3],
        whole + b"more",
        b"\0" + whole,
        lines,
    ):
        path.write_bytes(content)
        for given in (path, tmp_path / "a*"):
            assert run("store", "--input", given, "--existing", "replace") == 1
            shown = capsys.readouterr().err
            assert shown.startswith(f"error: --input {path}: cannot be read (")
            assert "all of it in " in shown
    path.write_bytes(whole)
    (tmp_path / "missing.txt.gz").symlink_to(tmp_path / "no")
    with pytest.raises(InputError, match="cannot be read"):
        list(TextFile(tmp_path / "missing.txt.gz").rows())


def test_parquet_is_not_compressed_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.touch()
    with pytest.raises(InputError, match="is Parquet in gzip, expected it as it is"):
        TextFile(path)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x\ny"))
    with pytest.raises(InputError, match="its suffix says no format"):
        TextFile(path)
    assert [text for _, text in TextFile(path, "lines").rows()] == ["x", "y"]


def test_a_file_is_sought_as_any_other(tmp_path: Path) -> None:
    content = b"".join(b"%d\n" % i for i in range(400_000))
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content, 1))
    with open_compressed(lambda: path.open("rb"), "gzip") as file:
        for at in (0, 5, 2_000_000, 3, 2_000_001, len(content) - 4):
            assert file.seek(at) == file.tell() == at
            assert file.read(1000) == content[at : at + 1000]
        assert file.seek(1) == 1
        assert file.readline() == b"\n"
        file.seek(10 * len(content))
        assert file.read() == b""


def test_memory_is_that_of_a_buffer(tmp_path: Path) -> None:
    """Of 80 MB in a file of less than one."""
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a line of the text again\n" * 3_200_000, 1))
    assert path.stat().st_size < 1 << 20
    rows = open_input([str(path)]).rows()
    next(rows)
    tracemalloc.start()
    try:
        assert sum(1 for _, _ in zip(rows, range(400_000), strict=False)) == 400_000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        assert pa.total_allocated_bytes() < 16 << 20
    finally:
        tracemalloc.stop()
