"""`bitheads.backfill` and `Answers`: a store's answers without a command line."""

from __future__ import annotations

import re
from pathlib import Path

import polars
import pyarrow as pa
import pytest
from random_heads import random_head, random_two_texts_head
from store_cases import fill, make_features, make_ids

import bitheads
from bitheads import InputError, StoreError
from bitheads.engine import bundle
from bitheads.engine.store import Answers, FeatureStore, StoreWriter, verify_answers
from bitheads.engine.store.answer_folders import head_name

DOCUMENT = Path(__file__).parents[3] / "docs" / "store.md"


def test_the_example_runs(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of docs/store.md, from texts to answers."""
    place = tmp_path / "run" / "bundles" / "all-MiniLM-L6-v2"
    place.parent.mkdir(parents=True)
    own_bundle.rename(place)
    spec = bundle.read_manifest(place).spec
    for old in (place / "heads").glob("*"):
        old.unlink()
    random_head(spec, "sentiment").save(place / "heads" / "sentiment.safetensors")
    random_head(spec, "topic").save(tmp_path / "run" / "new-topic.safetensors")
    monkeypatch.chdir(tmp_path / "run")
    (example,) = re.findall(r"```py\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    texts = [f"The tide was out {i} times." for i in range(9)]
    names = {"ids": make_ids(9), "texts": texts, "polars": polars}
    exec(compile(example, DOCUMENT.name, "exec"), names)
    left = [name for name in make_ids(9) if name != "text-7"]
    for task in ("sentiment", "topic"):
        answers = Answers("answers", task)
        assert answers.to_arrow(["id"])["id"].to_pylist() == left
    expected = bitheads.Engine.load(place, "onnxruntime").predict(texts, ["sentiment"])
    kept = [
        top
        for top, name in zip(expected["sentiment"].top, make_ids(9), strict=True)
        if name in left
    ]
    assert Answers("answers", "sentiment").to_arrow()["label"].to_pylist() == kept


def test_heads_of_any_kind_and_what_is_left(tmp_path: Path) -> None:
    """What `train_head` gives is the head that its file is."""
    store = fill(tmp_path / "store")
    output = tmp_path / "answers"
    head = random_head(store.spec, "topic", seed=1)
    path = head.save(tmp_path / "topic.safetensors")
    tone = random_head(store.spec, "tone", seed=2)
    assert bitheads.backfill(store, [head, tone], output, threads=1) == 60
    assert bitheads.backfill(store, path, output) == 0
    assert bitheads.backfill(str(store.folder), [str(path), tone], str(output)) == 0
    with StoreWriter(store) as writer:
        writer.append(make_ids(4, 500), make_features(store.spec, 4))
    assert bitheads.backfill(store, head, output) == 4
    answers = Answers(output, "topic")
    assert answers.heads == [head_name(bundle.Artifact.of(path).sha256)]
    assert len(answers) == len(answers.to_arrow()) == 64
    assert sum(len(table) for table in answers.tables(["label"])) == 64


def test_of_pairs(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("id_a\tid_b\ntext-1\ttext-2\ntext-30\ttext-1\n", encoding="utf-8")
    head = random_two_texts_head(store.spec, "alike")
    assert bitheads.backfill(store, head, tmp_path / "answers", pairs=pairs) == 2
    table = Answers(tmp_path / "answers", "alike").to_arrow()
    assert table["id_b"].to_pylist() == ["text-2", "text-1"]


def test_readers_of_arrow(tmp_path: Path) -> None:
    """Heads with other labels beside each other, too."""
    store = fill(tmp_path / "store")
    output = tmp_path / "answers"
    scores = {"labels": (), "kind": "regression", "decision": bitheads.Decision(value_range=(0, 9))}
    old = random_head(store.spec, "topic", classes=3)
    new = random_head(store.spec, "topic", seed=1, **scores)
    for head in (old, new):
        bitheads.backfill(store, head, output, other_heads="keep")
    answers = Answers(output, "topic")
    assert len(answers.heads) == 2
    table = answers.to_arrow()
    frames = [
        table.to_pandas(),
        polars.DataFrame(answers).to_pandas(),
        pa.table(answers).to_pandas(),
    ]
    for frame in frames:
        assert len(frame) == 120
        assert set(frame["head"]) == set(answers.heads)
        assert frame["value"].isna().sum() == frame["label"].isna().sum() == 60
    kinds = {name: Answers(output, "topic", name).to_arrow() for name in answers.heads}
    assert sorted("value" in one.column_names for one in kinds.values()) == [False, True]
    assert verify_answers(store, output) == []


def test_errors(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    output = tmp_path / "answers"
    head = random_head(store.spec, "topic")
    bitheads.backfill(store, head, output)
    with pytest.raises(InputError, match=r"task 'tone': .* expected one of \['topic'\]"):
        Answers(output, "tone")
    with pytest.raises(InputError, match="has no answers of it for task 'topic', expected one of"):
        Answers(output, "topic", "h000000000000")
    answers = Answers(output, "topic")
    with pytest.raises(InputError, match="has no column 'labels', expected some of"):
        answers.to_arrow(["labels"])
    with pytest.raises(InputError, match="heads: got int, expected a bundle's folder"):
        bitheads.backfill(store, 7, output)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tasks: got them with heads"):
        bitheads.backfill(store, head, output, tasks=["topic"])
    with pytest.raises(InputError, match=r"other_heads: got 'all', expected one of \['refuse'"):
        bitheads.backfill(store, head, output, other_heads="all")
    other = random_head(store.spec, "topic", seed=1)
    with pytest.raises(StoreError, match="has the answers of head h"):
        bitheads.backfill(store, other, output)
    bitheads.backfill(store, other, output, other_heads="replace")
    with pytest.raises(StoreError, match="was replaced since it was opened"):
        answers.to_arrow()
    path = next((output / "task=topic").glob("*.parquet"))
    sound = path.read_bytes()
    path.write_bytes(bytes([*sound[:40], sound[40] ^ 1, *sound[41:]]))
    with pytest.raises(StoreError, match="was changed after it was written"):
        Answers(output, "topic").to_arrow()
    assert FeatureStore(store.folder.path).id == store.id
