"""`bitheads encode --columns`: the user's columns go with their texts, whatever comes between."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tiny_encoders import corpus

from bitheads.engine.bundle import read_manifest
from bitheads.engine.commands.encode import main
from bitheads.engine.jobs.ray_jobs import EncodeJob, EncodeWorker, plan_encoding
from bitheads.engine.store import FeatureStore, StoreWriter
from bitheads.engine.texts.text_inputs import open_input

TEXTS = corpus()[:30]
IDS = [f"id {i}" for i in range(30)]
Run = Callable[..., int]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Run:
    def call(*options: object) -> int:
        fixed = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--store", tmp_path / "store"]
        return main([str(option) for option in (*fixed, *options)])

    return call


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    """Rows of the store as DuckDB has them, in the order of their ids."""

    def call(columns: str) -> list[tuple[Any, ...]]:
        files = f"read_parquet('{tmp_path}/store/*.parquet')"
        return duckdb.sql(f"SELECT {columns} FROM {files} ORDER BY id").fetchall()

    return call


Read = Callable[[str], list[tuple[Any, ...]]]


def refusal(run: Run, capsys: pytest.CaptureFixture[str], *options: object) -> str:
    assert run(*options) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    return shown


TYPED = {
    "stars": pa.array([5, None, 3], pa.int8()),
    "big": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "price": pa.array([Decimal("1.10"), None, Decimal("-2.00")], pa.decimal128(9, 2)),
    "at_ns": pa.array([1, None, 1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")),
    "day": pa.array([datetime.date(2024, 1, 1), None, None]),
    "tags": pa.array([["a", "b"], [], None], pa.list_(pa.string())),
    "who": pa.array([{"name": "x", "age": 1}, None, {"name": None, "age": 2}]),
    "more": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "raw": pa.array([b"\xff\0", None, b""], pa.binary()),
    "key": pa.array([b"abcd", b"efgh", None], pa.binary(4)),
    "flag": pa.array([True, None, False]),
    "half": pa.array([1.5, None, 2.5], pa.float16()),
    "wait_ns": pa.array([1, None, 3], pa.duration("ns")),
    "id_bytes": pa.array([b"0123456789abcdef", None, b"x" * 16], pa.uuid()),
    "time_ns": pa.array([1, None, 2], pa.time64("ns")),
    "long": pa.array([["a"], None, []], pa.large_list(pa.large_string())),
    "note": pa.array(["", None, "naïve 🙂"]),
}


def test_types_of_parquet_are_kept(run: Run, tmp_path: Path) -> None:
    """To the bit, nanoseconds, nulls and all."""
    table = pa.table({"text": TEXTS[:3], "id": IDS[:3], **TYPED})
    pq.write_table(table, tmp_path / "a.parquet")
    assert run("--input", tmp_path / "a.parquet", "--columns", *TYPED) == 0
    stored = pq.read_table(tmp_path / "store", columns=["id", *TYPED])
    assert (
        stored.select(["id", *TYPED])
        .cast(table.select(["id", *TYPED]).schema)
        .equals(table.select(["id", *TYPED]))
    )
    for name, column in TYPED.items():
        assert stored.schema.field(name).type == column.type
    rows = [
        row
        for part in FeatureStore(tmp_path / "store").scan(columns=["stars"])
        for row in part.columns["stars"].to_pylist()
    ]
    assert rows == [5, None, 3]


def test_names_of_columns(run: Run, tmp_path: Path, read: Read) -> None:
    """A dot in one is not that of a struct."""
    columns = {"a.b": [1, 2], "Größe (m)": ["u", None], "a": [{"b": 5}, {"b": None}]}
    pq.write_table(pa.table({"text": TEXTS[:2], **columns}), tmp_path / "a.parquet")
    assert run("--input", tmp_path / "a.parquet", "--columns", *columns) == 0
    assert read('"a.b", "Größe (m)", a') == [(1, "u", {"b": 5}), (2, None, {"b": None})]


def test_what_pandas_and_polars_write(run: Run, tmp_path: Path, read: Read) -> None:
    """Each writes text in its own way; a column of one file may be all null."""
    folder = tmp_path / "in"
    folder.mkdir()
    columns = {"id": IDS[:4], "text": TEXTS[:4], "kind": ["x", None, "y", "x"], "n": [1, 2, 3, 4]}
    pd.DataFrame(columns).astype({"kind": "category"}).to_parquet(folder / "a.parquet")
    pl.DataFrame({**columns, "id": IDS[4:8]}).write_parquet(folder / "b.parquet")
    row = "SELECT 'id 8' AS id, 'a text' AS text, 'z' AS kind, 5::BIGINT AS n"
    duckdb.sql(f"COPY ({row}) TO '{folder}/c.parquet'")
    nothing = pd.DataFrame({"id": ["id 9"], "text": ["b"], "kind": [None], "n": [None]})
    nothing.to_parquet(folder / "d.parquet")
    assert run("--input", folder, "--columns", "kind", "--columns", "n") == 0
    kinds = ["x", None, "y", "x"]
    numbers = list(zip(kinds, [1, 2, 3, 4], strict=True))
    assert read("kind, n") == [*numbers, *numbers, ("z", 5), (None, None)]
    assert read("typeof(kind), typeof(n)")[0] == ("VARCHAR", "BIGINT")


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "csv.gz"])
def test_tables_and_json_lines(run: Run, tmp_path: Path, read: Read, suffix: str) -> None:
    frame = pd.DataFrame({"id": IDS, "text": TEXTS, "stars": range(30), "lang": ["de", ""] * 15})
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    quotes = () if suffix == "jsonl" else ("--quotes", "csv")
    assert run("--input", path, "--columns", "lang", "stars", *quotes, "--chunk-texts", 7) == 0
    expected = [("de" if i % 2 == 0 else "", i if suffix == "jsonl" else str(i)) for i in range(30)]
    assert sorted(read("lang, stars, id"), key=lambda row: int(row[2][3:])) == [
        (*row, name) for row, name in zip(expected, IDS, strict=True)
    ]


def test_types_of_json_lines(run: Run, tmp_path: Path, read: Read) -> None:
    """A row without a column has null there, as Spark writes it; types are those of all files."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text(
        '{"id": 1, "text": "x", "n": null, "x": 1, "b": true, "k": 9007199254740993}\n\n'
        '{"id": 2, "text": "y", "n": 7, "x": 2, "none": null}\n'
    )
    (folder / "b.jsonl").write_text('{"id": 3, "text": "z", "x": 0.5, "s": "é"}\n')
    options = ["--columns", "n", "x", "b", "s", "k", "none"]
    assert run("--input", folder, *options) == 0
    assert read("n, x, b, s, k, none") == [
        (None, 1.0, True, None, 9007199254740993, None),
        (7, 2.0, None, None, None, None),
        (None, 0.5, None, "é", None, None),
    ]
    kinds = read("typeof(n), typeof(x), typeof(b), typeof(s), typeof(none)")
    assert kinds[0] == ("BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "VARCHAR")
    (folder / "b.jsonl").write_text('{"id": 4, "text": "z", "x": 3, "none": null}\n')  # no fraction
    assert run("--input", folder / "b.jsonl", *options[:4]) == 1  # not all columns
    (folder / "b.jsonl").write_text(
        '{"id": 4, "text": "z", "x": 3, "n": 1, "b": false, "s": null, "k": 1, "none": null}'
    )
    assert run("--input", folder / "b.jsonl", *options) == 0
    assert read("x, none")[3] == (3.0, None)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"text": "x", "c": 1}\n{"text": "y", "c": "1"}', "has texts in row 1, expected whole"),
        ('{"text": "x", "c": true}\n{"text": "y", "c": 1}', "has whole numbers in row 1, expected"),
        ('{"text": "x", "c": 0.5}\n{"text": "y", "c": 9007199254740993}', "numbers beyond 2^53 in"),
        ('{"text": "x", "c": [1]}', "row 0 has [1] in column 'c', expected a text"),
        ('{"text": "x", "c": 18446744073709551616}', "row 0 has 18446744073709551616"),
        ('{"text": "x", "c": "\\ud800"}', "row 0 has '\\ud800' in column 'c'"),
        ('{"text": "x"}\n{"text": "y"}', "no column 'c', expected what --columns names"),
    ],
)
def test_json_that_is_of_no_type(
    run: Run, tmp_path: Path, lines: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines)
    shown = refusal(run, capsys, "--input", path, "--columns", "c")
    assert shown.startswith(f"error: --input {path}: ")
    assert said in shown
    assert not (tmp_path / "store").exists()


def test_files_of_other_columns_or_types(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    base = {"id": IDS[:2], "text": TEXTS[:2]}
    pq.write_table(pa.table({**base, "n": [1, 2], "m": [1, 2]}), folder / "a.parquet")
    pq.write_table(pa.table({**base, "n": ["1", "2"]}), folder / "b.parquet")
    shown = refusal(run, capsys, "--input", folder, "--columns", "n")
    assert f"--input {folder}/b.parquet: column 'n' has texts, expected int64 as in" in shown
    shown = refusal(run, capsys, "--input", folder, "--columns", "m")
    assert f"--input {folder}/b.parquet: no column 'm', expected what --columns names" in shown
    path = folder / "a.parquet"
    for name in ("codes", "id", "text_hash", "embedding", "words", "Num_Tokens"):
        pq.write_table(pa.table({"text": ["x"], name: ["k"]}), path)
        shown = refusal(run, capsys, "--input", path, "--columns", name)
        assert f"--columns: got {name!r}, which a store has of its own" in shown
    shown = refusal(run, capsys, "--input", path, "--columns", "text", "text")
    assert "--columns: got ['text', 'text'], expected each once" in shown
    double = pa.table([["x"], [1], [2]], names=["text", "n", "n"])
    pq.write_table(double, path)
    assert "more than one column 'n'" in refusal(run, capsys, "--input", path, "--columns", "n")
    (tmp_path / "a.txt").write_text("x\n")
    shown = refusal(run, capsys, "--input", tmp_path / "a.txt", "--columns", "n")
    assert "a.txt: no column 'n'" in shown
    assert not (tmp_path / "store").exists()


def test_a_store_keeps_to_its_columns(
    run: Run, tmp_path: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["x"], "n": [1]}), path)
    assert run("--input", path, "--columns", "n") == 0
    pq.write_table(pa.table({"id": ["b"], "text": ["y"], "n": ["2"], "m": [1]}), path)
    assert "'n' is string, and int64 in" in refusal(run, capsys, "--input", path, "--columns", "n")
    for options in ([], ["--columns", "m"], ["--columns", "n", "m"]):
        assert "expected ['n'] as all rows" in refusal(run, capsys, "--input", path, *options)
    pq.write_table(pa.table({"id": ["b"], "text": ["y"], "n": pa.nulls(1)}), path)
    assert run("--input", path, "--columns", "n") == 0
    assert read("id, n") == [("a", 1), ("b", None)]


def test_changed_texts_bring_their_columns(
    run: Run, tmp_path: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `update` those of unchanged texts stay; `replace` takes all."""
    path = tmp_path / "a.jsonl"

    def write(*rows: tuple[str, int]) -> None:
        lines = [json.dumps({"id": i, "text": t, "n": n}) for i, (t, n) in enumerate(rows)]
        path.write_text("\n".join(lines))

    write(("x", 1), ("y", 2))
    assert run("--input", path, "--columns", "n") == 0
    assert "note: " not in capsys.readouterr().out
    write(("x", 10), ("other", 20), ("new", 30))
    assert run("--input", path, "--columns", "n") == 0
    shown = capsys.readouterr().out
    assert "(1 new, 1 changed)" in shown
    assert "note: the columns of texts that are stored already are left as they are" in shown
    assert read("id, n") == [("0", 1), ("1", 20), ("2", 30)]
    assert run("--input", path, "--columns", "n", "--existing", "replace") == 0
    assert "note: " not in capsys.readouterr().out
    assert read("id, n") == [("0", 10), ("1", 20), ("2", 30)]


def test_a_row_and_its_columns_stay_together(run: Run, tmp_path: Path, read: Read) -> None:
    """Bad rows between, chunks, many files, a run that ended in the middle."""
    folder = tmp_path / "in"
    folder.mkdir()
    pairs = zip(IDS, TEXTS, strict=True)
    lines = [json.dumps({"id": name, "text": t, "n": name, "t": t}) for name, t in pairs]
    for at in (3, 11, 12, 25):
        lines.insert(at, '{"id": "bad", "text": null, "n": -1}')
    lines.insert(5, '{"id": "bad", "text": "fine", "n": [], "t": "-"}')
    (folder / "a.jsonl").write_text("\n".join(lines[:14]))
    (folder / "b.jsonl").write_text("\n\n".join(lines[14:]))
    options = ["--columns", "n", "t", "--chunk-texts", 4]
    skip = ["--on-bad-row", "skip", "--bad-rows", tmp_path / "bad.out"]
    assert run("--input", folder, *options) == 1  # the type of `n` is looked for first
    assert run("--input", folder / "b.jsonl", *options, "--part-seconds", 0.001, *skip) == 0
    assert run("--input", folder, *options, *skip) == 0
    reasons = [
        json.loads(line)["reason"] for line in (tmp_path / "bad.out").read_text().split("\n")[:-1]
    ]
    assert len(reasons) == 5
    assert sum("column 'n'" in reason for reason in reasons) == 1
    assert sorted(read("id, n, t")) == sorted(zip(IDS, IDS, TEXTS, strict=True))


def test_text_of_parquet_that_is_not_utf8(
    run: Run, tmp_path: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = pa.array([b"x", b"\xff", b"z"]).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS[:3], "lang": wrong}), path)
    options = ["--input", path, "--columns", "lang"]
    assert "row 1 has a value that no other program can read" in refusal(run, capsys, *options)
    skip = ["--on-bad-row", "skip", "--bad-rows", tmp_path / "bad.out"]
    assert run(*options, *skip) == 0
    assert read("id, lang") == [("0", "x"), ("2", "z")]


@pytest.mark.parametrize("form", ["parquet", "csv", "lines"])
def test_hive_partitions(run: Run, tmp_path: Path, read: Read, form: str) -> None:
    """As pyarrow writes them: escaped, and null under a name of its own."""
    days = ["2024-01-01", "a/b c=d", None]
    table = pa.table({"text": TEXTS, "day": [days[i % 3] for i in range(30)]})
    if form != "lines":
        table = table.append_column("id", [IDS])
    if form == "parquet" or form == "csv":
        ds.write_dataset(
            table.append_column("lang", [["de"] * 30]),
            tmp_path / "hive",
            format=form,
            partitioning=ds.partitioning(
                pa.schema([("day", pa.string()), ("lang", pa.string())]), flavor="hive"
            ),
        )
        expected = sorted((name, days[i % 3] or "", "de") for i, name in enumerate(IDS))
    else:
        for number, name in enumerate(
            ["2024-01-01", "a%2Fb%20c%3Dd", "__HIVE_DEFAULT_PARTITION__"]
        ):
            folder = tmp_path / "hive" / f"day={name}" / "lang=de"
            folder.mkdir(parents=True)
            (folder / "a.txt").write_text("\n".join(TEXTS[number::3]))
        in_order = ["2024-01-01", "", "a/b c=d"]
        expected = sorted((str(i), in_order[i // 10], "de") for i in range(30))
    assert run("--input", tmp_path / "hive", "--columns", "day", "lang") == 0
    assert sorted(read("id, coalesce(day, ''), lang")) == expected
    assert read("count(*) FILTER (day IS NULL), any_value(typeof(day)), 1 AS id")[0][:2] == (
        10,
        "VARCHAR",
    )


def test_a_folder_counts_for_a_column_of_its_name(
    run: Run, tmp_path: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """As other engines have it."""
    folder = tmp_path / "hive" / "day=5"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a"], "text": ["x"], "day": ["7"]}), folder / "a.parquet")
    glob = f"{tmp_path}/hive/*/*.parquet"
    query = f"SELECT day::VARCHAR FROM read_parquet('{glob}', hive_partitioning = true)"
    schema = ds.partitioning(pa.schema([("day", pa.string())]), flavor="hive")
    others = [
        *(row[0] for row in duckdb.sql(query).fetchall()),
        *pl.read_parquet(glob, hive_partitioning=True)["day"].to_list(),
        *ds.dataset(tmp_path / "hive", partitioning=schema).to_table()["day"].to_pylist(),
    ]
    assert run("--input", tmp_path / "hive", "--columns", "day") == 0
    assert [row[0] for row in read("day")] == ["5"]
    assert others == ["5", "5", "5"]
    pq.write_table(pa.table({"id": ["b"], "text": ["y"]}), tmp_path / "hive" / "b.parquet")
    shown = refusal(run, capsys, "--input", tmp_path / "hive", "--columns", "day")
    assert f"--input {tmp_path}/hive/b.parquet: no column 'day'" in shown
    (tmp_path / "hive" / "day=%ff").mkdir()
    (tmp_path / "hive" / "b.parquet").rename(tmp_path / "hive" / "day=%ff" / "b.parquet")
    shown = refusal(run, capsys, "--input", tmp_path / "hive", "--columns", "day")
    assert "the folder 'day=%ff' is not UTF-8 once it is decoded" in shown


def test_workers_of_ray_store_the_same(tiny_bundle: Path, tmp_path: Path, read: Read) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for day, (start, stop) in enumerate([(0, 11), (11, 30)]):
        rows = [
            {"id": IDS[i], "text": TEXTS[i], "n": i if i % 4 else None} for i in range(start, stop)
        ]
        (folder / f"day={day}").mkdir()
        lines = [*map(json.dumps, rows), "no"]
        (folder / f"day={day}" / "a.jsonl").write_text("\n".join(lines))
    texts = open_input([str(folder)], skips_bad_rows=True, own_columns=["n", "day"])
    store = FeatureStore(str(tmp_path / "store"), read_manifest(tiny_bundle).spec)
    job = EncodeJob(
        tiny_bundle, str(tmp_path / "store"), "onnxruntime", "auto", "skip", 4, 3, None, "cut"
    )
    with StoreWriter(store) as writer:
        blocks, _ = plan_encoding(texts, writer, "skip", 4)
    worker = EncodeWorker(job, 1, texts, "0")
    assert sum(worker.do(block) for block in blocks) == 30
    expected = [(IDS[i], i if i % 4 else None, str(int(i >= 11))) for i in range(30)]
    assert sorted(read("id, n, day"), key=lambda row: int(row[0][3:])) == expected
