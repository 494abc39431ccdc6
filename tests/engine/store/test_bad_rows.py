"""`bitheads encode --on-bad-row skip`: good rows as ever, bad ones told of."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_cases import contents

from bitheads.engine.bundle import read_manifest
from bitheads.engine.commands.encode import main
from bitheads.engine.jobs.ray_jobs import EncodeJob, EncodeWorker, plan_encoding
from bitheads.engine.store import FeatureStore, StoreWriter
from bitheads.engine.texts.text_inputs import open_input

Run = Callable[..., int]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Run:
    def call(*options: object) -> int:
        fixed = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--store", tmp_path / "store"]
        return main([str(option) for option in (*fixed, *options)])

    return call


def skip(tmp_path: Path) -> list[object]:
    return ["--on-bad-row", "skip", "--bad-rows", tmp_path / "bad.out"]


def told(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "bad.out").read_text().splitlines()]


def write(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)
    return path


NOT_UTF8 = pa.array([b"x", b"\xff", b"z"]).cast(pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("name", "content", "good", "bad"),
    [
        (
            "a.jsonl.gz",
            b'no\n{"text": "x"}\n\n{"text": null}\n[1]\n{"text": "\xff"}\n{"text": "y"}\n{"tex',
            ["1", "6"],
            {0: "is not a JSON object", 3: "has None in", 4: "no object", 5: "utf-8", 7: "line 8"},
        ),
        (
            "a.jsonl",
            b'{"id": "k", "text": "x"}\n{"text": "y"}\n{"id": 1.5, "text": "z"}\n{"id": 2}',
            ["k"],
            {1: "has None in column 'id'", 2: "has 1.5", 3: "has None in column 'text'"},
        ),
        ("a.jsonl", b'{"text": "x"}\n{"id": "k", "text": "y"}', ["0"], {1: "has an 'id'"}),
        ("a.csv", b'text\nx\n"y" z\n"a\nb"\n1,2\n', ["0", "2"], {1: "cell 1", 3: "has 2 col"}),
        ("a.tsv", b"id\ttext\n1\tx\n2\n3\ty\tz\n4\t\xff\n5\tz", ["1", "5"], {1: "", 2: "", 3: ""}),
        ("a.txt", b"x\n\xff\xfe\n\ny", ["0", "3"], {1: "'utf-8' codec can't decode"}),
        (
            "a.parquet",
            pa.table({"id": ["a", "b", None], "text": ["x", None, "z"]}),
            ["a"],
            {1: "has None in column 'text'", 2: "has None in column 'id'"},
        ),
        ("a.parquet", pa.table({"text": NOT_UTF8}), ["0", "2"], {1: "has b'\\xff' in column"}),
    ],
)
def test_bad_rows_are_passed_over_and_told_of(
    run: Run,
    tmp_path: Path,
    name: str,
    content: Any,
    good: list[str],
    bad: dict[int, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "in", name, content)
    assert run("--input", path) == 1
    assert capsys.readouterr().err.startswith(f"error: --input {path}: ")
    for _ in range(2):  # what is stored is passed over, and the rest told of again
        assert run("--input", path, *skip(tmp_path), "--progress") == 0
        shown = capsys.readouterr()
        assert f"passed over {len(bad)} rows that are no texts" in shown.out
        assert list(contents(FeatureStore(tmp_path / "store"))) == good
        found = told(tmp_path)
        assert [one["row"] for one in found] == [*bad]
        assert {one["file"] for one in found} == {str(path)}
        for one, reason in zip(found, bad.values(), strict=True):
            assert reason in one["reason"]
            assert str(path) not in one["reason"]
        texts = open_input([str(path)], skips_bad_rows=True)
        whole = [*texts.rows()]
        for count in (1, 2):
            ranges = texts.ranges(count)
            assert [row for within in ranges for row in texts.rows(within)] == whole


def test_rows_of_several_files_keep_their_numbers(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "a.jsonl", b'{"text": "x"}\nno')
    write(folder, "b.jsonl", b'no\n{"text": "y"}')
    assert run("--input", folder, *skip(tmp_path)) == 0
    assert list(contents(FeatureStore(tmp_path / "store"))) == ["0", "3"]
    places = [(Path(one["file"]).name, one["row"]) for one in told(tmp_path)]
    assert places == [("a.jsonl", 1), ("b.jsonl", 0)]


def test_what_may_hide_good_rows_ends_the_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quote that is never closed takes the rest of the file."""
    path = write(tmp_path / "in", "a.csv", b'text\nx\n"never closed\ny\nz\n')
    assert run("--input", path, *skip(tmp_path)) == 1
    assert "row 1: cell 1" in capsys.readouterr().err
    assert not (tmp_path / "bad.out").exists()
    path = write(tmp_path / "in", "b.jsonl", b'{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\nno')
    assert run("--input", path, *skip(tmp_path)) == 1
    assert "id '1' comes twice" in capsys.readouterr().err


def test_options_that_go_together(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "in", "a.txt", b"x")
    for options in (["--on-bad-row", "skip"], ["--bad-rows", "b.jsonl"]):
        assert run("--input", path, *options) == 1
        assert "got one of them, expected both" in capsys.readouterr().err
    assert run("--input", path, "--on-bad-row", "skip", "--bad-rows", path) == 1
    assert "is a file of the input" in capsys.readouterr().err
    assert path.read_bytes() == b"x"
    assert run("--input", path, "--on-bad-row", "skip", "--bad-rows", tmp_path / "in") == 1
    assert "cannot be written" in capsys.readouterr().err
    assert run("--input", path, *skip(tmp_path)) == 0
    assert (tmp_path / "bad.out").read_bytes() == b""
    assert "passed over" not in capsys.readouterr().out


def test_workers_of_ray_pass_over_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "a.jsonl", b'no\nno\n{"text": "x"}\n{"text": "y"}\nno\n')
    write(folder, "b.jsonl", b'{"text": "z"}\nno')
    texts = open_input([str(folder)], skips_bad_rows=True)
    store = str(tmp_path / "store")
    job = EncodeJob(tiny_bundle, store, "onnxruntime", "auto", "skip", 2, 1024, None, "cut")
    bad: list[int] = []
    with StoreWriter(FeatureStore(store, read_manifest(tiny_bundle).spec)) as writer:
        blocks, _ = plan_encoding(texts, writer, "skip", 2, lambda path, row: bad.append(row.row))
    assert bad == [0, 1, 4, 1]
    worker = EncodeWorker(job, 1, texts, "0")
    assert [worker.do(block) for block in blocks] == [2, 1]
    assert sorted(contents(FeatureStore(store))) == ["2", "3", "5"]
