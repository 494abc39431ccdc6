"""Parquet files of stores and answers as tables of Iceberg, registered as docs/query.md shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written_store import TEXTS, Written

from bitheads.engine.features.embedding import PRECISIONS
from bitheads.engine.store import FeatureStore, compact, delete

PAGE = Path(__file__).parents[2] / "docs" / "query.md"


@pytest.fixture
def names(own: Written, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's example leaves, with its catalog."""
    monkeypatch.chdir(own.folder)
    (Path("answers") / "task=single_label-never-single").rename("answers/task=topic")
    (example,) = re.findall(r"```python\n(from pathlib.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(example, PAGE.name, "exec"), found)
    return found


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    rows = table.to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def of_files(folder: Path) -> dict[str, dict[str, Any]]:
    """By pyarrow, from the files alone."""
    return by_id(pa.concat_tables([pq.ParquetFile(p).read() for p in folder.glob("*.parquet")]))


def test_rows_are_the_files(names: dict[str, Any]) -> None:
    catalog, register = names["catalog"], names["register"]
    features = catalog.load_table("texts.features")
    assert by_id(features.scan().to_arrow()) == of_files(Path("features"))
    assert len(features.inspect.files()) == 2
    tasks = sorted(path.name for path in Path("answers").glob("task=*"))
    assert len(tasks) > 10
    for task in tasks:
        register(catalog, f"texts.{task}", f"answers/{task}")
        table = catalog.load_table(f"texts.{task}").scan().to_arrow()
        assert by_id(table) == of_files(Path("answers") / task)
        assert len(table) == len(TEXTS)
    for precision in PRECISIONS[1:]:
        register(catalog, f"texts.{precision}", precision)
        table = catalog.load_table(f"texts.{precision}").scan().to_arrow()
        assert by_id(table) == of_files(Path(precision))


def test_a_filter_finds_its_rows(names: dict[str, Any]) -> None:
    """By statistics that files carry, where there are any."""
    topic = names["catalog"].load_table("texts.topic")
    expected = of_files(Path("answers/task=topic"))
    label = expected["text-0"]["label"]
    found = by_id(topic.scan(row_filter=f"label = '{label}'").to_arrow())
    assert found == {name: row for name, row in expected.items() if row["label"] == label}
    assert 0 < len(found) < len(expected)


def test_what_has_changed_is_registered_anew(own: Written, names: dict[str, Any]) -> None:
    catalog, register = names["catalog"], names["register"]
    texts = {f"text-{i}": text for i, text in enumerate(TEXTS)} | {"text-3": "changed", "new": "x"}
    own.encode("features", texts, "--spans", "--embeddings", "float32")
    delete(FeatureStore("features"), ["text-5"])
    compact(FeatureStore("features"))
    register(catalog, "texts.features", "features")
    table = catalog.load_table("texts.features")
    found = by_id(table.scan().to_arrow())
    assert found == of_files(Path("features"))
    assert {*found} == {*texts} - {"text-5"}
    stored = {
        name: features.codes.tobytes()
        for rows in FeatureStore("features").scan()
        for name, features in zip(rows.ids.to_pylist(), rows.features, strict=True)
    }
    assert {name: row["codes"] for name, row in found.items()} == stored
