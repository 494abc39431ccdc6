"""A server puts the bundle's prefix before each text; clients send texts without it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import running
from random_heads import random_head, random_span_head

from bitheads import Engine, PositionPooling
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.types import Text

PREFIX = "query: "
TEXTS = ["The tide was out.", "", "mud " * 100, *["boat " * (i % 9) for i in range(400)]]
"""Some, and more than are tokenized at once."""


@pytest.fixture(scope="module")
def served(build_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefixed") / "tiny"
    shutil.copytree(build_bundle("bert", prefix=PREFIX), folder)
    with Engine.load(folder, backend="onnxruntime") as engine:
        ending = random_head(engine.spec, "ending", PositionPooling.LAST)
        heads = [ending, random_span_head(engine.spec)]
    for head in heads:
        write_head(head, folder / "heads" / f"{head.task}.safetensors")
    return folder


def test_answers_are_of_the_prefix_and_the_text(served: Path, tiny_bundle: Path) -> None:
    texts: list[Text] = [*TEXTS]
    with Engine.load(tiny_bundle, backend="onnxruntime") as bare:
        expected = bare.encode([PREFIX + text for text in TEXTS])
    with Engine.load(served, backend="onnxruntime") as engine:
        answers = engine.predict(texts)
        labels, spans = answers["ending"].top, answers["names"].spans
        assert (engine.encode(texts).codes == expected.codes).all()
    with running(served, max_texts=len(TEXTS)) as (client, _):
        response = client.post("/v1/predict", json={"inputs": TEXTS})
        assert response.status_code == 200, response.text
        found = response.json()
    assert [row["ending"]["label"] for row in found["predictions"]] == list(labels)
    for row, wanted, text in zip(found["predictions"], spans, TEXTS, strict=True):
        places = [(span["start"], span["end"]) for span in row["names"]["spans"]]
        assert places == [(span.start, span.end) for span in wanted]
        assert row["names"].get("truncated_at", 0) <= len(text)
        for start, end in places:  # of whole words, where the prefix does not count
            assert f" {text} "[start] == f" {text} "[end + 1] == " " or "." in text
    usage = found["usage"]
    assert (usage["texts"], usage["tokens"]) == (len(TEXTS), int(expected.offsets[-1]))
    assert len(set(labels)) > 1
    assert sum(map(len, spans)) > 100
