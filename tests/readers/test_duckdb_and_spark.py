"""Stores and answers as DuckDB and Spark read them: the same rows, values and types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from written_store import TEXTS, Written

from bitheads import Engine
from bitheads.engine.features.embedding import PRECISIONS
from bitheads.engine.store import FeatureStore

PAGE = Path(__file__).parents[2] / "docs" / "query.md"

SPARK_TYPES = {
    "BIGINT": "bigint",
    "BLOB": "binary",
    "BOOLEAN": "boolean",
    "DOUBLE": "double",
    "FLOAT": "float",
    "INTEGER": "int",
    "TINYINT": "tinyint",
    "UTINYINT": "smallint",
    "VARCHAR": "string",
}
"""DuckDB's type of a column -> Spark's; that of lists follows."""


def spark_type(kind: str) -> str:
    """What Spark calls a type of DuckDB."""
    if item := re.fullmatch(r"(.*)\[\d*\]", kind):
        return f"array<{spark_type(item[1])}>"
    if parts := re.fullmatch(r"STRUCT\((.*)\)", kind):
        pairs = (part.replace('"', "").split(" ", 1) for part in parts[1].split(", "))
        return f"struct<{','.join(f'{name}:{spark_type(part)}' for name, part in pairs)}>"
    return SPARK_TYPES[kind]


def plain(value: Any) -> Any:
    """As JSON has it; bytes in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [*map(plain, value)] if isinstance(value, list | tuple) else value


def rows_of(query: str, db: Any = duckdb) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """DuckDB's types by column, and its rows."""
    found = db.sql(query)
    types = dict(zip(found.columns, map(str, found.types), strict=True))
    rows = [dict(zip(found.columns, map(plain, row), strict=True)) for row in found.fetchall()]
    return types, rows


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row.get("task", ""), row["id"], row.get("num_tokens", 0)))


@pytest.fixture
def changed(own: Written, monkeypatch: pytest.MonkeyPatch) -> Written:
    """One text of many is another one, so that its part outdates a row."""
    monkeypatch.chdir(own.folder)
    texts = {f"text-{i}": text for i, text in enumerate(TEXTS)} | {"text-3": "changed since then"}
    own.encode("features", texts, "--spans", "--embeddings", "float32")
    return own


def run_duckdb_example() -> None:
    (example,) = re.findall(r"```python\n(import duckdb.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(example, PAGE.name, "exec"), {})


def test_views_have_each_text_once(changed: Written) -> None:
    run_duckdb_example()
    with duckdb.connect("texts.duckdb") as db:
        _, both = rows_of("SELECT id FROM 'features/*.parquet'", db)
        assert len(both) == len(TEXTS) + 1
        _, features = rows_of("SELECT * FROM features", db)
        stored = {
            name: codes.codes.tobytes().hex()
            for rows in FeatureStore("features").scan()
            for name, codes in zip(rows.ids.to_pylist(), rows.features, strict=True)
        }
        assert {row["id"]: row["codes"] for row in features} == stored
        assert len(features) == len(TEXTS)
        _, answers = rows_of("SELECT * FROM answers", db)
        tasks = {path.name.partition("=")[2] for path in Path("answers").glob("task=*")}
        assert {row["task"] for row in answers} == tasks
        assert len(answers) == len(tasks) * len(TEXTS)


def test_views_answer_as_the_engine(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written.folder)
    kind = "single_label-never-single"
    _, rows = rows_of(f"SELECT id, label FROM 'answers/task={kind}/*.parquet'")
    with Engine.load(written.bundle, "onnxruntime") as engine:
        answers = engine.predict(TEXTS, tasks=[kind])[kind]
    expected = {f"text-{i}": answers.labels[best] for i, best in enumerate(answers.best)}
    assert {row["id"]: row["label"] for row in rows} == expected


@pytest.mark.long
def test_spark_reads_what_duckdb_reads(changed: Written, tmp_path: Path) -> None:
    """Long, as it takes Spark (400 MB) and Java."""
    out = tmp_path / "spark.json"
    script = Path(__file__).with_name("read_with_spark.py")
    done = subprocess.run(
        [sys.executable, script, out, PAGE], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    spark = json.loads(out.read_text(encoding="utf-8"))
    assert {*spark} == {"answers", "features", "shown", *PRECISIONS[1:]}
    for folder in {*spark} - {"shown"}:
        files = "answers/*/*.parquet', hive_partitioning = true, union_by_name = true"
        files = files if folder == "answers" else f"{folder}/*.parquet'"
        types, rows = rows_of(f"SELECT * FROM read_parquet('{files})")
        assert spark[folder]["types"] == {name: spark_type(kind) for name, kind in types.items()}
        assert ordered(spark[folder]["rows"]) == ordered(rows)
        assert rows
    run_duckdb_example()
    with duckdb.connect("texts.duckdb") as db:
        assert ordered(spark["shown"]["rows"]) == ordered(rows_of("SELECT * FROM features", db)[1])
