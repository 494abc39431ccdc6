"""Heads of words among others: batches of many requests' texts, parts of a request, codes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ADMIN_KEY, running
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.answer_parts import json_answers
from bitheads.engine.heads.head import reads_words
from bitheads.engine.heads.head_file import FoldedHead, write_head
from bitheads.engine.serve.request import Request
from bitheads.engine.serve.scheduler import Scheduler
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import Text

TASKS = {
    "names": ("token_label", ("PERSON", "GPE", "ORG"), "single"),
    "topic": ("single_label", ("a", "b", "c"), "single"),
    "money": ("token_label", ("MONEY",), "single"),
    "same": ("single_label", ("no", "yes"), "pair"),
}
TEXT = "Otto Hahn lived in Göttingen; 3.50 $ (or 😀😀 more) for New-York's 東京 ..."
WORDS = TEXT.split()
TEXTS: list[Text] = [
    " ".join(WORDS[i % 12 :] + WORDS[: 5 * i % 13]) + " again" * (60 * (i % 17 == 3))
    for i in range(40)
]
TEXTS[4:4] = ["", "   ", "...", "\u3000\n", "<b>&amp;</b> \0 Otto", "'"]
for place in (2, 9, 10, 30):
    TEXTS.insert(place, (f"Otto Hahn {place}", "He lived in Bonn."))
"""Some of no words, some longer than is read, some pairs."""


def head_of(engine: Engine, task: str, seed: int) -> FoldedHead:
    kind, labels, form = TASKS[task]
    return random_head(engine.spec, task, kind=kind, labels=labels, form=form, seed=seed)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("served") / "spans"))
    with Engine.load(folder, backend="onnxruntime") as engine:
        for seed, task in enumerate(TASKS):
            write_head(head_of(engine, task, seed), folder / "heads" / f"{task}.safetensors")
    return folder


@pytest.fixture(scope="module")
def offline(bundle: Path) -> Iterator[Engine]:
    with Engine.load(bundle, backend="onnxruntime") as engine:
        yield engine


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[httpx.Client]:
    with running(bundle) as (client, _):
        yield client


def answers(engine: Engine, texts: list[Text], tasks: list[str] | None = None) -> list[Any]:
    """As HTTP has them."""
    told: list[dict[str, Any]] = [{} for _ in texts]
    for task, prediction in engine.predict(texts, tasks).items():
        for row, answer in zip(told, json_answers(prediction), strict=True):
            if answer is not None:
                row[task] = answer
    return told


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("max_batch_tokens", [1, 128, 4096])
def test_texts_of_many_requests_share_batches(
    bundle: Path, backend: str, max_batch_tokens: int
) -> None:
    """Alone or together, with lanes and without: requests that ask for words, those that do not,
    and batches in which a request's pairs are alone.

    To the bit for the codes that the batches gave. On some processors OpenVINO's signs depend on
    the batch, so where a request did not ask for them, all rows but a few are compared."""
    with Engine.load(bundle, backend, threads=2, precision="fp32") as engine:
        scheduler = Scheduler(engine, 10**6, max_batch_tokens)
        try:
            made = []
            for i in range(0, len(TEXTS), 3):
                texts = TEXTS[i : i + 1 + i % 7]
                heads = engine.choose_heads([["topic"], ["money", "topic"], None, []][i % 4])
                tokens = engine.tokenizer(texts, words=reads_words(heads))
                request = Request(tokens, heads, wants_features=i % 2 == 0)
                made.append((texts, heads, scheduler.submit(request)))
            found = [future.result(60) for _, _, future in made]
        finally:
            scheduler.close()
        num_spans = num_rows = num_others = 0
        for (texts, heads, _), answer in zip(made, found, strict=True):
            alone = engine.encode(texts, words=True)
            given = alone
            if answer.features is not None:
                given = replace(answer.features, words=alone.words)
            changed = np.unpackbits(given.codes ^ alone.codes)
            most = 1 + 1e-3 * changed.size if backend == "openvino" else 0
            assert changed.sum() <= most, "codes of another text"
            expected = engine.predict_features(given)
            assert [*answer.predictions] == [head.task for head in heads]
            for task, prediction in answer.predictions.items():
                if not prediction.answered.any():
                    continue  # of the form that none of the texts has
                wanted = expected[task]
                np.testing.assert_array_equal(prediction.answered, wanted.answered)
                assert prediction.truncated_at == wanted.truncated_at
                num_spans += sum(map(len, prediction.spans))
                same = np.isclose(prediction.logits, wanted.logits, 0, 0, equal_nan=True)
                others = ~same.all(-1)
                num_rows, num_others = num_rows + len(others), num_others + int(others.sum())
                if answer.features is not None or backend == "onnxruntime":
                    assert not others.any()
                    assert prediction.spans == wanted.spans
    assert num_spans > 100
    assert num_others <= 0.02 * num_rows


@pytest.mark.parametrize("repeat", [1, 20])
def test_answers_are_those_of_the_engine(
    client: httpx.Client, offline: Engine, repeat: int
) -> None:
    """Of texts that are tokenized at once, and in parts."""
    texts = TEXTS * repeat
    assert (sum(map(len, texts)) > 1 << 16) == (repeat > 1)
    found = client.post("/v1/predict", json={"inputs": texts}).json()["predictions"]
    expected = answers(offline, texts)
    assert [{*row} for row in found] == [{*row} for row in expected]
    assert sum("truncated_at" in row.get("names", {}) for row in found) > 1
    for row, wanted in zip(found, expected, strict=True):
        for task in row:
            assert {*row[task]} == {*wanted[task]}
            assert row[task].get("truncated_at") == wanted[task].get("truncated_at")
            for one, other in zip(
                row[task].get("spans", []), wanted[task].get("spans", []), strict=True
            ):
                assert one == {**other, "probability": pytest.approx(other["probability"])}


def test_words_are_looked_for_where_a_head_wants_them(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    tokenize = TextTokenizer.__call__

    def noted(self: TextTokenizer, *args: Any, words: bool = False, **options: Any) -> Any:
        asked.append(words)
        return tokenize(self, *args, words=words, **options)

    monkeypatch.setattr(TextTokenizer, "__call__", noted)
    for tasks, inputs in (
        (["topic"], "Otto"),
        (None, [["Otto", "Hahn"]]),
        (["topic", "names"], "Otto"),
        (None, ["Otto", ["Otto", "Hahn"]]),
    ):
        body = {"inputs": inputs} | ({} if tasks is None else {"tasks": tasks})
        assert client.post("/v1/predict", json=body).status_code == 200
    assert client.post("/v1/features", json={"inputs": "Otto"}).status_code == 200
    assert asked == [False, False, True, True, False]


def test_codes_have_no_words(client: httpx.Client) -> None:
    kept = client.post("/v1/features", json={"inputs": ["Otto Hahn", ["a", "b"]]}).json()
    body = {"features": kept["features"], "spec_id": kept["spec_id"]}
    found = client.post("/v1/predict_features", json=body).json()["predictions"]
    assert [{*row} for row in found] == [{"topic"}, {"same"}]
    for tasks in (["names"], ["topic", "money"]):
        response = client.post("/v1/predict_features", json={**body, "tasks": tasks})
        assert response.status_code == 422
        error = response.json()["error"]
        assert error["code"] == "bad_request"
        assert error["message"].startswith(f"task {tasks[-1]!r}: its head reads the words of texts")
        assert "Send the texts to /v1/predict" in error["message"]


def test_pairs_alone_are_an_error(client: httpx.Client) -> None:
    body = {"inputs": [["Otto", "Hahn"]], "tasks": ["names"]}
    response = client.post("/v1/predict", json=body)
    assert response.status_code == 422
    assert "its head reads single texts" in response.json()["error"]["message"]


def test_a_head_of_another_kind_in_its_place(
    client: httpx.Client, offline: Engine, tmp_path: Path
) -> None:
    """Requests under way have the one or the other, whole."""
    texts = ["Otto Hahn lived in Bonn.", "Why?", "for 3.50 $"]
    made = [
        random_head(offline.spec, "new", kind="token_label", labels=("X",), seed=1),
        random_head(offline.spec, "new", classes=2, seed=2),
        random_head(offline.spec, "new", kind="token_label", labels=("Y", "Z"), seed=3),
    ]
    for head in made:
        head.output_bias[0] -= 9  # most words are of spans
    contents, wanted = [], []
    for i, head in enumerate(made):
        path = tmp_path / f"{i}.safetensors"
        write_head(head, path)
        contents.append(path.read_bytes())
        offline.add_head(path, replace=True)
        rows = answers(offline, texts, ["new"])
        wanted.append([[s["label"] for s in row["new"].get("spans", [])] for row in rows])
    offline.remove_head("new")
    assert wanted[1] == [[], [], []]
    assert [[], [], []] not in (wanted[0], wanted[2])
    assert wanted[0] != wanted[2]
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}

    def put(i: int) -> None:
        response = client.put("/v1/tasks/new", content=contents[i % 3], headers=admin)
        assert response.status_code == 204

    def ask(i: int) -> int:
        body = {"inputs": texts, "tasks": ["new", "money"][: 1 + i % 2]}
        found = client.post("/v1/predict", json=body).json()["predictions"]
        has_label = ["label" in row["new"] for row in found]
        assert len({*has_label}) == 1
        labels = [[s["label"] for s in row["new"].get("spans", [])] for row in found]
        assert labels in wanted
        return wanted.index(labels)

    put(0)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, i) for i in range(200)]
        for i in range(1, 40):
            put(i)
            assert ask(0) == i % 3
        for future in asked:
            future.result()
    assert client.delete("/v1/tasks/new", headers=admin).status_code == 204
