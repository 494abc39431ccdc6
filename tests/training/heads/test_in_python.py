"""`bitheads.train_head`: the same head of any library's rows, saved and served; nothing early."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitheads
from bitheads import Engine, FoldedHead, LayerPooling
from bitheads.engine.errors import InputError, SpecMismatchError
from bitheads.engine.heads.head_file import read_head
from bitheads.training.data.labelled_texts import read_labelled

pytestmark = pytest.mark.usefixtures("few_penalties")

DATA = Path(__file__).parents[2] / "data"
FIT = {"epochs": 2}


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return Engine.load(tiny_bundle, backend="onnxruntime")


@pytest.fixture(scope="module")
def topics() -> tuple[list[Any], list[Any]]:
    data = read_labelled(DATA / "topics.tsv")
    return data.texts[:150], list(data.labels[:150])


def train(engine: Engine, texts: Any, labels: Any = None, **more: Any) -> FoldedHead:
    return bitheads.train_head(engine, texts, labels, fit=FIT, reject=False, **more)


def logits(engine: Engine, head: FoldedHead, texts: list[Any]) -> Any:
    engine.add_head(head)
    found = engine.predict(texts, [head.task])[head.task].logits
    engine.remove_head(head.task)
    return found


def test_the_same_of_all_libraries(engine: Engine, topics: tuple[list[Any], list[Any]]) -> None:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    texts, labels = topics
    first = train(engine, texts, labels, dev=(texts[:40], labels[:40]), task="topic")
    table = {"text": texts, "label": labels}
    frame, arrow = pd.DataFrame(table), pa.table(table)
    given: list[tuple[Any, ...]] = [
        (tuple(texts), np.array(labels)),
        (np.array(texts, object), labels),
        (frame.text, frame.label),
        (pl.Series(texts), pl.Series(labels)),
        (arrow["text"], arrow["label"]),
        (frame,),
        (pl.DataFrame(table),),
        ([dict(zip(table, row, strict=True)) for row in zip(texts, labels, strict=True)],),
    ]
    for rows in given:
        head = train(engine, *rows, dev=frame.head(40), task="topic")
        assert head.labels == first.labels
        assert head.metrics == first.metrics
        assert np.array_equal(logits(engine, head, texts), logits(engine, first, texts))


@pytest.mark.long
def test_kinds_follow_from_labels(engine: Engine, topics: tuple[list[Any], list[Any]]) -> None:
    texts, labels = topics
    lengths = [float(len(text)) for text in texts]
    sets = [[label] * (len(text) % 3) for text, label in zip(texts, labels, strict=True)]
    places = [len(text) // 30 for text in texts]
    with pytest.raises(InputError, match="comes twice"):
        train(engine, texts, sets)
    sets = [found[:1] for found in sets]
    assert train(engine, texts, lengths).kind == "regression"
    assert train(engine, texts, sets).kind == "multi_label"
    assert train(engine, texts, places, kind="ordinal").kind == "ordinal"
    words = [f"Word {text}" for text in texts]
    spans = [[{"start": 0, "end": 4, "label": "FIRST"}] for _ in words]
    assert train(engine, words, spans).kind == "token_label"
    pairs = list(zip(texts, reversed(texts), strict=True))
    for form in ("pair", "two_texts"):
        head = train(engine, pairs, labels, form=form)
        assert head.form == form
        assert logits(engine, head, pairs).shape == (len(pairs), 4)


def test_saved_and_served(
    engine: Engine, topics: tuple[list[Any], list[Any]], build_bundle: Any, tmp_path: Path
) -> None:
    texts, labels = topics
    head = train(engine, texts, labels, task="served")
    path = head.save(tmp_path / "heads" / "served.safetensors")
    assert engine.add_head(head) == "served"
    with pytest.raises(bitheads.BitheadsError, match="head 'served': task 'served' is loaded"):
        engine.add_head(head)
    from_memory = engine.predict(texts, ["served"])["served"]
    engine.remove_head("served")
    engine.add_head(path)
    from_file = engine.predict(texts, ["served"])["served"]
    engine.remove_head("served")
    assert np.array_equal(from_memory.logits, from_file.logits)
    assert read_head(path).metrics == head.metrics
    with pytest.raises(bitheads.BitheadsError, match="exists"):
        head.save(str(path))
    small = head.save(path, dtype="float16", force=True)
    assert small.stat().st_size < 1.5 * head.nbytes
    other = Engine.load(
        build_bundle("bert", layer_pooling=LayerPooling.LAST), backend="onnxruntime"
    )
    with pytest.raises(SpecMismatchError, match="head 'served'"):
        other.add_head(head)


def test_background_of_ones_own(engine: Engine, topics: tuple[list[Any], list[Any]]) -> None:
    texts, labels = topics
    others = [f"Invoice {i} is due on day {i % 28}, please pay {i * 3} crowns." for i in range(150)]
    head = bitheads.train_head(engine, texts, labels, fit=FIT, background=others, dev=topics)
    assert head.decision.reject_above is not None
    assert 0 <= head.metrics["dev_background_accepted"] <= 1


def test_each_text_is_encoded_once(
    tiny_bundle: Path, topics: tuple[list[Any], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_bundle, backend="onnxruntime")
    asked: list[Any] = []
    encode = Engine.encode

    def counted(self: Engine, texts: Any, *arguments: Any, **more: Any) -> Any:
        asked.extend(texts)
        return encode(self, texts, *arguments, **more)

    monkeypatch.setattr(Engine, "encode", counted)
    texts, labels = topics
    for _ in range(2):
        train(engine, [*texts, *texts], [*labels, *labels], dev=(texts[::-1], labels[::-1]))
    assert sorted(asked) == sorted(set(texts))


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ("one text", ["a"], "texts: got 'one text', a str, expected a list"),
        (["one", "two"], ["a"], "texts: got 2 texts and 1 labels, expected as many"),
        (["one", None], ["a", "b"], "row 1: got None in the column text, expected a text"),
        (["one", "two"], {"a": 1}, "labels: got {'a': 1}, a dict, expected a list"),
        (["one", "two"], ["a", "a"], "every row has the label 'a'"),
        (iter(["one"]), ["a"], "expected a list, an array or a column"),
    ],
)
def test_errors(engine: Engine, texts: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        train(engine, texts, labels)
    assert message in str(error.value)


LIGHT = """
import sys
import bitheads
assert "train_head" in dir(bitheads) and "BitheadsClassifier" in bitheads.__all__
bitheads.FeatureSpec
assert not {"torch", "sklearn", "scipy", "matplotlib"} & set(sys.modules), "not light"
sys.modules["torch"] = None  # as if it were not installed
try:
    bitheads.train_head
except bitheads.BitheadsError as error:
    print(error)
"""


def test_import_is_light_and_says_what_is_missing() -> None:
    found = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True
    )
    assert "train_head needs torch. Type: pip install" in found.stdout
    assert "[training]" in found.stdout
