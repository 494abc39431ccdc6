"""Pairs whose texts are encoded by themselves, over HTTP and KServe: what the engine says."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ADMIN_KEY, running
from random_heads import random_head, random_span_head, random_two_texts_head, three_two_texts_heads

from bitheads import Engine
from bitheads.engine.answer_parts import json_answers
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.kinds import Decision
from bitheads.engine.types import Text

LONG = "the tide was out and " * 60
SINGLES = ["The tide was out.", "Mud, mud and mud", "A film", "Nobody", LONG, ""]
PAIRS: list[Text] = [(SINGLES[i % 6], SINGLES[i * i % 5]) for i in range(12)]
MIXED: list[Text] = [SINGLES[0], *PAIRS[:3], SINGLES[4], SINGLES[1], *PAIRS[3:], SINGLES[0]]
APART = ("apart", "near", "size")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("served") / "apart"))
    with Engine.load(folder, backend="onnxruntime") as engine:
        spec = engine.spec
    decision = Decision(reject_above=0.0, reject_scale=1.5)
    for head in (
        random_head(spec, "topic"),
        random_span_head(spec, "names"),
        random_head(spec, "same", form="pair", seed=1),
        *three_two_texts_heads(spec, decision),
    ):
        write_head(head, folder / "heads" / f"{head.task}.safetensors")
    return folder


@pytest.fixture(scope="module")
def offline(bundle: Path) -> Iterator[Engine]:
    with Engine.load(bundle, backend="onnxruntime") as engine:
        yield engine


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[httpx.Client]:
    with running(bundle) as (client, _):
        yield client


def ask(client: httpx.Client, texts: list[Text], **more: Any) -> dict[str, Any]:
    response = client.post("/v1/predict", json={"inputs": texts, **more})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def answers(engine: Engine, texts: list[Text], tasks: list[str] | None = None) -> list[Any]:
    """As HTTP has them."""
    told: list[dict[str, Any]] = [{} for _ in texts]
    for task, prediction in engine.predict(texts, tasks).items():
        for row, answer in zip(told, json_answers(prediction), strict=True):
            if answer is not None:
                row[task] = answer
    return told


@pytest.mark.parametrize("tasks", [None, ["apart"], ["near", "same"], ["size", "topic", "names"]])
@pytest.mark.parametrize("texts", [PAIRS, MIXED, PAIRS[:1]], ids=["pairs", "mixed", "one"])
def test_answers_are_those_of_the_engine(
    client: httpx.Client, offline: Engine, texts: list[Text], tasks: list[str] | None
) -> None:
    if tasks is not None and "topic" in tasks and texts is not MIXED:
        tasks = ["size"]
    found = ask(client, texts, **({} if tasks is None else {"tasks": tasks}))
    assert found["predictions"] == answers(offline, texts, tasks)
    assert found["usage"]["texts"] == len(texts)
    assert found["usage"]["truncated"] == offline.predict(texts, tasks).stats.num_truncated
    texts = [*dict.fromkeys(texts)]
    usage = ask(client, texts, **({} if tasks is None else {"tasks": tasks}))["usage"]
    # The engine counts the tokens that it encodes, a text that is in a pair, too, once.
    num_tokens = offline.predict(texts, tasks).stats.num_tokens
    are_twice = SINGLES[0] in texts and (tasks is None or "topic" in tasks)
    assert (usage["tokens"] > num_tokens) if are_twice else (usage["tokens"] == num_tokens)


def test_many_requests_at_once(client: httpx.Client, offline: Engine) -> None:
    """In batches together, texts of pairs beside texts and pairs."""
    cases = [
        (MIXED[i % 9 : i % 9 + 1 + i % 6], None if i % 3 else ["apart", "same"]) for i in range(60)
    ]
    cases = [(t, k) for t, k in cases if k is None or any(isinstance(text, tuple) for text in t)]

    def one(case: tuple[list[Text], list[str] | None]) -> Any:
        texts, tasks = case
        return ask(client, texts, **({} if tasks is None else {"tasks": tasks}))["predictions"]

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(one, cases))
    for (texts, tasks), got in zip(cases, found, strict=True):
        assert got == answers(offline, texts, tasks)


def test_all_probabilities(client: httpx.Client, offline: Engine) -> None:
    found = ask(client, PAIRS, tasks=["apart"], return_probabilities=True)["predictions"]
    wanted = offline.predict(PAIRS, ["apart"])["apart"].probabilities
    got = [[*row["apart"]["probabilities"].values()] for row in found]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_single_texts_have_no_answer(client: httpx.Client) -> None:
    assert {*ask(client, ["Nobody"])["predictions"][0]} == {"topic", "names"}
    response = client.post("/v1/predict", json={"inputs": ["Nobody"], "tasks": ["apart"]})
    assert response.status_code == 422
    assert "task 'apart': its head reads pairs of texts" in response.json()["error"]["message"]


def test_codes_have_no_answer(client: httpx.Client, offline: Engine) -> None:
    asked = client.post("/v1/features", json={"inputs": MIXED}).json()
    body = {"spec_id": asked["spec_id"], "features": asked["features"]}
    found = client.post("/v1/predict_features", json=body)
    assert found.status_code == 200, found.text
    assert {task for row in found.json()["predictions"] for task in row} == {"topic", "same"}
    refused = client.post("/v1/predict_features", json={**body, "tasks": ["apart"]})
    assert refused.status_code == 422
    assert "its head reads two texts that were encoded" in refused.json()["error"]["message"]


def test_pairs_of_codes(client: httpx.Client, offline: Engine) -> None:
    singles = SINGLES * 9
    kept = client.post("/v1/features", json={"inputs": singles}).json()
    body = {"spec_id": kept["spec_id"], "features": kept["features"]}
    for rows in ([(0, i) for i in range(1, 6)], [(i % 54, i * i % 54) for i in range(300)], []):
        found = client.post("/v1/predict_features", json={**body, "pairs": rows})
        assert found.status_code == 200, found.text
        wanted = answers(offline, [(singles[a], singles[b]) for a, b in rows], [*APART])
        assert found.json()["predictions"] == wanted
        assert found.json()["usage"]["texts"] == len(rows)
    some = client.post("/v1/predict_features", json={**body, "pairs": [[1, 0]], "tasks": ["near"]})
    assert [{*row} for row in some.json()["predictions"]] == [{"near"}]


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"pairs": [[0, 9]]}, 422, r"pairs: got [0, 9] as pair 0, expected rows of the features'"),
        ({"pairs": [[0, 2]]}, 422, "pairs: got [0, 2] as pair 0, of which one was encoded as a"),
        ({"pairs": [[0, -1]]}, 422, "pairs.0.1: Input should be greater than or equal to 0"),
        ({"pairs": [[0, 1, 1]]}, 422, "pairs.0: List should have at most 2 items"),
        ({"pairs": [[0, "1"]]}, 422, "pairs.0.1: Input should be a valid integer"),
        ({"pairs": [[0, 1]] * 1001}, 413, "inputs: got 1001 texts, expected at most 1000"),
        ({"pairs": [[0, 1]], "tasks": ["same"]}, 422, "task 'same': its head reads texts of the"),
        ({"pairs": [[0, 1]], "tasks": ["none"]}, 404, "task 'none': no such head is loaded"),
    ],
)
def test_pairs_of_codes_that_are_none(
    client: httpx.Client, asked: dict[str, Any], status: int, message: str
) -> None:
    texts: list[Text] = [SINGLES[0], SINGLES[1], PAIRS[0]]
    kept = client.post("/v1/features", json={"inputs": texts}).json()
    body = {"spec_id": kept["spec_id"], "features": kept["features"], **asked}
    refused = client.post("/v1/predict_features", json=body)
    assert refused.status_code == status, refused.text
    assert message in refused.json()["error"]["message"]


def test_tasks_say_their_form(client: httpx.Client) -> None:
    forms = {task["name"]: task["form"] for task in client.get("/v1/tasks").json()["tasks"]}
    assert forms == {
        "topic": "single",
        "names": "single",
        "same": "pair",
        **dict.fromkeys(APART, "two_texts"),
    }


def test_a_head_that_comes_later(bundle: Path, offline: Engine, tmp_path: Path) -> None:
    head = tmp_path / "late.safetensors"
    write_head(random_two_texts_head(offline.spec, "late", seed=9), head)
    with running(bundle) as (client, _):
        keys = {"authorization": f"Bearer {ADMIN_KEY}"}
        put = client.put("/v1/tasks/late", content=head.read_bytes(), headers=keys)
        assert put.status_code == 204, put.text
        found = ask(client, PAIRS, tasks=["late"])["predictions"]
    with Engine.load(bundle, backend="onnxruntime") as engine:
        engine.add_head(head)
        assert found == answers(engine, PAIRS, ["late"])


def infer(client: httpx.Client, pairs: list[Text], names: list[str]) -> dict[str, Any]:
    columns = {"text": [pair[0] for pair in pairs], "text_pair": [pair[1] for pair in pairs]}
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [len(pairs)], "data": data}
        for name, data in columns.items()
    ]
    body: dict[str, Any] = {"inputs": inputs}
    if names:
        body["outputs"] = [{"name": name} for name in names]
    response = client.post("/v2/models/apart/infer", json=body)
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def test_kserve(client: httpx.Client, offline: Engine) -> None:
    wanted = offline.predict(PAIRS)
    found = infer(client, PAIRS, [])
    assert found["apart"] == [*wanted["apart"].top]
    assert found["same"] == [*wanted["same"].top]
    assert found["near_accepted"] == wanted["near"].accepted.tolist()
    np.testing.assert_allclose(found["size"], wanted["size"].values, rtol=1e-6)
    features = offline.encode(PAIRS)
    with_codes = infer(client, PAIRS, ["apart", "codes", "num_tokens"])
    assert {*with_codes} == {"apart", "codes", "num_tokens"}
    assert with_codes["apart"] == found["apart"]
    assert with_codes["num_tokens"] == features.num_tokens.tolist()
    metadata = client.get("/v2/models/apart").json()
    assert "near_out_of_domain" in {output["name"] for output in metadata["outputs"]}


def test_codes_that_are_asked_for_with_answers_are_those_of_the_pairs(
    client: httpx.Client, offline: Engine
) -> None:
    body = {
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [1], "data": [SINGLES[0]]},
            {"name": "text_pair", "datatype": "BYTES", "shape": [1], "data": [SINGLES[1]]},
        ],
        "outputs": [
            {"name": "apart"},
            {"name": "codes", "parameters": {"binary_data": True}},
        ],
    }
    response = client.post("/v2/models/apart/infer", json=body)
    length = int(response.headers["inference-header-content-length"])
    raw = response.content[length:]
    codes = offline.encode([(SINGLES[0], SINGLES[1])]).codes.tobytes()
    assert codes in raw, base64.b64encode(raw)
