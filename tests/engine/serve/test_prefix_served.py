"""A server puts the bundle's prefix before each text; clients send texts without it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import running
from random_heads import random_head

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
        head = random_head(engine.spec, "ending", PositionPooling.LAST)
    write_head(head, folder / "heads" / "ending.safetensors")
    return folder


def test_answers_are_of_the_prefix_and_the_text(served: Path, tiny_bundle: Path) -> None:
    texts: list[Text] = [*TEXTS]
    with Engine.load(tiny_bundle, backend="onnxruntime") as bare:
        expected = bare.encode([PREFIX + text for text in TEXTS])
    with Engine.load(served, backend="onnxruntime") as engine:
        labels = engine.predict(texts)["ending"].top
        assert (engine.encode(texts).codes == expected.codes).all()
    with running(served, max_texts=len(TEXTS)) as (client, _):
        response = client.post("/v1/predict", json={"inputs": TEXTS})
        assert response.status_code == 200, response.text
        found = response.json()
    assert [row["ending"]["label"] for row in found["predictions"]] == list(labels)
    usage = found["usage"]
    assert (usage["texts"], usage["tokens"]) == (len(TEXTS), int(expected.offsets[-1]))
    assert len(set(labels)) > 1
