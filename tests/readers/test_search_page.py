"""What docs/search.md shows runs, and finds what is near."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from random_heads import random_head
from written_store import TEXTS, Written

from bitheads import Engine
from bitheads.engine.heads.head_file import write_head

PAGE = Path(__file__).parents[2] / "docs" / "search.md"


@pytest.fixture
def names(own: Written, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's examples leave."""
    monkeypatch.chdir(own.folder)
    with Engine.load(own.bundle, "onnxruntime") as engine:
        head = random_head(engine.spec, "sentiment", labels=("neg", "pos"))
    write_head(head, own.bundle / "heads" / "sentiment.safetensors")
    texts = {f"text-{i}": text for i, text in enumerate(TEXTS)}
    own.encode("reviews", texts, "--embeddings", "ubinary")
    shutil.rmtree("answers")
    own.backfill("reviews", "answers", "--tasks", "sentiment")
    Path("bundles").mkdir()
    Path("bundles/all-MiniLM-L6-v2").symlink_to(own.bundle)
    found: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(compile(example, PAGE.name, "exec"), found)
    return found


def test_a_text_finds_itself(names: dict[str, Any]) -> None:
    vectors = names["engine"].embed(TEXTS)
    signs = np.packbits(vectors > 0, axis=1)
    assert (np.unpackbits(signs) == np.unpackbits(names["signs"])).mean() > 0.99  # another backend
    for i in (0, 7, 150):
        assert f"text-{i}" in names["search"](TEXTS[i], count=3)
        distances = np.bitwise_count(names["signs"] ^ signs[i]).sum(axis=1)
        near = names["search"](TEXTS[i], count=5, candidates=5)
        assert distances[[names["ids"].index(name) for name in near]].max() <= np.sort(distances)[4]
        # Tiny encoders give many texts the same signs.
        found = names["graph"].search(signs[i], 3).keys
        assert distances[found].min() == distances.min()
    assert len(names["search"]("x", 1000, 1000)) == len(TEXTS)


def test_answers_say_where_to_search(names: dict[str, Any]) -> None:
    query = "SELECT id, label FROM 'answers/task=sentiment/*.parquet'"
    labels = dict(duckdb.sql(query).fetchall())
    faiss, rows = names["faiss"], names["rows"]
    params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(rows))
    found = names["search"]("the plot", 1000, 1000, params)
    assert sorted(found) == sorted(name for name, label in labels.items() if label == "neg")
    assert 0 < len(found) < len(TEXTS)
