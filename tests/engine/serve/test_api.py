"""The server's own routes, over a real socket."""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import ADMIN_KEY, TASKS, running
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.heads.head_file import write_head

TEXT = "The plot is thin, but what a cast!"
PAIR = ["Two men are smoking.", "Nobody is smoking."]
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}


def predict(client: httpx.Client, **body: Any) -> Any:
    response = client.post("/v1/predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def error(response: httpx.Response) -> tuple[int, str, str]:
    found = response.json()["error"]
    return response.status_code, found["code"], found["message"]


def test_every_task_of_the_texts_form_answers(client: httpx.Client, offline: Engine) -> None:
    found = predict(client, inputs=[TEXT, PAIR, "Why?"])
    expected = offline.predict([TEXT, tuple(PAIR), "Why?"])
    assert [{*row} for row in found["predictions"]] == [
        {"topic", "mood"},
        {"same"},
        {"topic", "mood"},
    ]
    for i, row in enumerate(found["predictions"]):
        for task, answer in row.items():
            assert answer["label"] == expected[task].top[i]
            assert answer["probability"] == pytest.approx(
                expected[task].probabilities[i].max(), abs=1e-6
            )
    assert found["spec_id"] == offline.spec.id
    assert found["usage"] == {"texts": 3, "tokens": expected.stats.num_tokens, "truncated": 0}


def test_one_string_is_a_list_of_one(client: httpx.Client) -> None:
    assert predict(client, inputs=TEXT) == predict(client, inputs=[TEXT])


def test_tasks_by_name_answer_texts_of_their_form(client: httpx.Client, offline: Engine) -> None:
    texts = [TEXT, ("Is it so?", "Is it?")]
    found = predict(client, inputs=texts, tasks=["same", "mood"], return_probabilities=True)
    expected = offline.predict(texts, ["same", "mood"])
    for i, (row, task) in enumerate(zip(found["predictions"], ("mood", "same"), strict=True)):
        assert [*row] == [task]
        probabilities = row[task]["probabilities"]
        assert [*probabilities] == list(expected[task].labels)
        assert [*probabilities.values()] == pytest.approx(
            expected[task].probabilities[i].tolist(), abs=1e-6
        )
    assert predict(client, inputs=[TEXT], tasks=[])["predictions"] == [{}]


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        (TEXT, "same", "task 'same': its head reads pairs of texts"),
        ([TEXT, TEXT], "mood", "task 'mood': its head reads single texts"),
    ],
)
def test_a_task_that_is_for_none_of_the_texts(
    client: httpx.Client, text: Any, task: str, message: str
) -> None:
    answer = client.post("/v1/predict", json={"inputs": [text, text], "tasks": [task]})
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]
    features = client.post("/v1/features", json={"inputs": [text]}).json()
    body = {"features": features["features"], "spec_id": features["spec_id"], "tasks": [task]}
    answer = client.post("/v1/predict_features", json=body)
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]
    half = {**body, "features": [body["features"][0], {**body["features"][0], "is_pair": None}]}
    answer = client.post("/v1/predict_features", json=half)
    assert answer.status_code == 422
    assert "features.1.is_pair: got none" in answer.json()["error"]["message"]
    del body["features"][0]["is_pair"]  # the client answers for what it does not say
    answer = client.post("/v1/predict_features", json=body)
    assert [{*row} for row in answer.json()["predictions"]] == [{task}]


def test_a_byte_order_mark_is_passed_over(client: httpx.Client) -> None:
    """On every route that reads JSON, also before the part of a body that is followed by bytes."""
    features = client.post("/v1/features", json={"inputs": TEXT}).json()
    asked = {key: features[key] for key in ("spec_id", "features")}
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
    for path, body in (
        ("/v1/predict", {"inputs": TEXT}),
        ("/v1/features", {"inputs": TEXT}),
        ("/v1/predict_features", asked),
        ("/v2/models/tiny/infer", {"inputs": [tensor]}),
    ):
        plain, marked = (
            client.post(path, content=json.dumps(body).encode(encoding))
            for encoding in ("utf-8", "utf-8-sig")
        )
        assert (plain.status_code, marked.status_code) == (200, 200), (path, plain.text)
        assert marked.json() == plain.json()


def test_a_text_alone_equals_it_among_many(client: httpx.Client) -> None:
    texts = [TEXT, *(f"Text {i} " * (1 + i % 9) for i in range(50))]
    together = predict(client, inputs=texts)["predictions"]
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: predict(client, inputs=text)["predictions"][0], texts))
    assert together == alone


def test_no_texts_are_answered(client: httpx.Client) -> None:
    assert predict(client, inputs=[])["predictions"] == []


def test_long_texts_are_cut_and_counted(client: httpx.Client) -> None:
    assert predict(client, inputs=["word " * 1000])["usage"]["truncated"] == 1


def test_stages_are_in_the_header(client: httpx.Client) -> None:
    first, again = [
        client.post("/v1/predict", json={"inputs": "Nobody asks this twice, but here."})
        for _ in range(2)
    ]
    assert first.json() == again.json()
    for answer, is_encoded in ((first, True), (again, False)):
        stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
        assert [*stages] == ["tokenize", "queue", "encode", "pack", "heads"]
        assert (float(stages["encode"]) > 0) == is_encoded


def test_features_and_back(client: httpx.Client, offline: Engine) -> None:
    texts = [TEXT, "Why?", ("Why?", "Because.")]
    found = client.post("/v1/features", json={"inputs": texts}).json()
    expected = offline.encode(texts)
    assert found["spec_id"] == offline.spec.id
    assert found["code_bytes"] == offline.spec.code_bytes
    codes = b"".join(base64.b64decode(item["codes"]) for item in found["features"])
    assert codes == expected.codes.tobytes()
    assert [item["num_tokens"] for item in found["features"]] == expected.num_tokens.tolist()
    body = {"features": found["features"], "spec_id": found["spec_id"]}
    answers = client.post("/v1/predict_features", json=body)
    assert answers.status_code == 200
    assert "encode;dur=0.000" in answers.headers["server-timing"]
    rows = answers.json()["predictions"]
    assert [{*row} for row in rows] == [{"topic", "mood"}, {"topic", "mood"}, {"same"}]
    assert rows == predict(client, inputs=texts)["predictions"]


@pytest.mark.parametrize(
    ("change", "status", "code", "message"),
    [
        ({"spec_id": "0" * 16}, 409, "spec_mismatch", "spec_id: got '0000"),
        ({"tasks": ["none"]}, 404, "unknown_task", "task 'none': no such head"),
        ({"features": [{"codes": "%", "num_tokens": 1}]}, 422, "bad_request", "not valid base64"),
        (
            {"features": [{"codes": "AAAA", "num_tokens": 7}]},
            422,
            "bad_request",
            "got 3 bytes for 7 tokens, expected 56",
        ),
        ({"features": [{"codes": "", "num_tokens": 0}]}, 422, "bad_request", "num_tokens"),
        ({"features": None}, 422, "bad_request", "features"),
    ],
)
def test_features_that_cannot_be(
    client: httpx.Client,
    offline: Engine,
    change: dict[str, Any],
    status: int,
    code: str,
    message: str,
) -> None:
    codes = base64.b64encode(bytes(offline.spec.code_bytes)).decode()
    body = {"features": [{"codes": codes, "num_tokens": 1}], "spec_id": offline.spec.id}
    assert client.post("/v1/predict_features", json=body).status_code == 200
    found = error(client.post("/v1/predict_features", json=body | change))
    assert found[:2] == (status, code)
    assert message in found[2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: "),
        (b"{", "body: "),
        (b"[]", "body: "),
        (b'{"inputs": 1}', "inputs: "),
        (b'{"inputs": [1]}', "inputs.0: "),
        (b'{"inputs": ["a", ["b"]]}', "inputs.1: "),
        (b'{"inputs": [["a", "b", "c"]]}', "inputs.0: "),
        (b'{"inputs": [null]}', "inputs.0: "),
        (b'{"inputs": "a", "task": "topic"}', "task: "),
        (b'{"inputs": "a", "tasks": "topic"}', "tasks: "),
        (b'{"inputs": "a", "return_probabilities": 1}', "return_probabilities: "),
        (b'{"inputs": "\\ud800"}', ": "),
        (b'{"inputs": "\xff"}', ": "),
        (b"[" * 20_000, "body: "),
    ],
)
def test_bodies_that_cannot_be(client: httpx.Client, body: bytes, message: str) -> None:
    status, code, found = error(client.post("/v1/predict", content=body))
    assert (status, code) == (422, "bad_request")
    assert message in found


def test_an_unknown_task(client: httpx.Client) -> None:
    found = error(client.post("/v1/predict", json={"inputs": "a", "tasks": ["none"]}))
    assert found[:2] == (404, "unknown_task")
    assert "expected one of ['mood', 'same', 'topic']" in found[2]


def test_tasks_are_described(client: httpx.Client, offline: Engine) -> None:
    found = client.get("/v1/tasks").json()
    assert {task["name"]: task["form"] for task in found["tasks"]} == TASKS
    assert found["tasks"][0]["labels"] == ["label-0", "label-1", "label-2"]
    assert found["code_bytes"] == offline.spec.code_bytes
    assert found["dim"] == offline.spec.dim
    assert found["backend"] == "onnxruntime fp32"


def test_other_paths_and_methods(client: httpx.Client) -> None:
    assert error(client.get("/nowhere"))[:2] == (404, "not_found")
    assert error(client.get("/v1/predict"))[:2] == (405, "method_not_allowed")


def test_the_schema_describes_bodies_and_answers(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    predict = schema["paths"]["/v1/predict"]["post"]
    body = predict["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["inputs"]
    of_texts = {"inputs", "return_features", "return_embeddings"}
    assert {*body["properties"]} == of_texts | {"tasks", "return_probabilities"}
    assert "$ref" not in json.dumps(body)
    assert {"200", "413", "422", "429", "503"} <= {*predict["responses"]}
    assert client.get("/docs").status_code == 200


def test_a_request_keeps_its_id(client: httpx.Client) -> None:
    assert (
        client.get("/health/live", headers={"x-request-id": "abc"}).headers["x-request-id"] == "abc"
    )
    made = {client.get("/health/live").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert (
        client.get("/health/live", headers={"x-request-id": "a" * 500}).headers["x-request-id"]
        != "a" * 500
    )


def test_metrics_count(head_bundle: Path) -> None:
    with running(head_bundle) as (client, _):
        assert client.get("/health/ready").status_code == 200
        predict(client, inputs=[TEXT, PAIR])
        client.post("/v1/predict", json={"inputs": 1})
        client.get("/nowhere/made/up")
        shown = client.get("/metrics").text
    values = dict(re.findall(r"^(bitheads_\S+(?:\{.*\})?) ([\d.e+-]+)$", shown, re.MULTILINE))
    assert values['bitheads_requests_total{route="/v1/predict",status="200"}'] == "1.0"
    assert values['bitheads_requests_total{route="/v1/predict",status="422"}'] == "1.0"
    assert values['bitheads_requests_total{route="none",status="404"}'] == "1.0"
    assert values["bitheads_texts_total"] == "2.0"
    assert values['bitheads_task_answers_total{task="topic"}'] == "1.0"
    assert values['bitheads_task_answers_total{task="same"}'] == "1.0"
    assert float(values["bitheads_tokens_total"]) > 10
    assert values["bitheads_queue_seconds_count"] == "1.0"
    assert float(values['bitheads_stage_seconds_sum{stage="encode"}']) > 0
    assert values["bitheads_queued_tokens"] == "0.0"
    assert values["bitheads_heads"] == "3.0"
    assert "made/up" not in shown


class TestHeads:
    @pytest.fixture
    def head(self, offline: Engine, tmp_path: Path) -> bytes:
        path = tmp_path / "new.safetensors"
        write_head(random_head(offline.spec, "new", classes=2, seed=9), path)
        return path.read_bytes()

    def test_put_use_delete(self, client: httpx.Client, head: bytes) -> None:
        assert client.put("/v1/tasks/new", content=head, headers=ADMIN).status_code == 204
        (row,) = predict(client, inputs=TEXT)["predictions"]
        assert {*row} == {"topic", "mood", "new"}
        assert client.put("/v1/tasks/new", content=head, headers=ADMIN).status_code == 204
        assert client.delete("/v1/tasks/new", headers=ADMIN).status_code == 204
        (row,) = predict(client, inputs=TEXT)["predictions"]
        assert {*row} == {"topic", "mood"}
        found = error(client.delete("/v1/tasks/new", headers=ADMIN))
        assert found[:2] == (404, "unknown_task")

    @pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
    def test_needs_an_admin_key(
        self, client: httpx.Client, head: bytes, headers: dict[str, str]
    ) -> None:
        response = client.put("/v1/tasks/new", content=head, headers=headers)
        assert error(response)[:2] == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        assert client.delete("/v1/tasks/topic", headers=headers).status_code == 401
        assert len(client.get("/v1/tasks").json()["tasks"]) == 3

    def test_of_another_name(self, client: httpx.Client, head: bytes) -> None:
        found = error(client.put("/v1/tasks/other", content=head, headers=ADMIN))
        assert found[:2] == (422, "bad_head")
        assert "Send it to /v1/tasks/new" in found[2]

    @pytest.mark.parametrize("name", ["..", "a%2Fb", "%00", "-x", "x" * 200])
    def test_names_are_no_paths(self, client: httpx.Client, head: bytes, name: str) -> None:
        response = client.put(f"/v1/tasks/{name}", content=head, headers=ADMIN)
        assert response.status_code in (404, 405, 422)

    def test_of_another_spec(self, client: httpx.Client, offline: Engine, tmp_path: Path) -> None:
        import dataclasses

        spec = dataclasses.replace(offline.spec, weights_sha256="f" * 64)
        path = tmp_path / "new.safetensors"
        write_head(random_head(spec, "new"), path)
        found = error(client.put("/v1/tasks/new", content=path.read_bytes(), headers=ADMIN))
        assert found[:2] == (409, "spec_mismatch")
        assert "bitheads-" not in found[2]  # nothing of the server's own files

    def test_hostile_files(self, client: httpx.Client, head: bytes) -> None:
        size = int.from_bytes(head[:8], "little")
        header = json.loads(head[8 : 8 + size])
        tensors = head[8 + size :]

        def made(changed: dict[str, Any]) -> bytes:
            text = json.dumps(changed).encode()
            return len(text).to_bytes(8, "little") + text + tensors

        query = header["query"]
        hostile = [
            b"",
            b"x" * 100,
            head[: len(head) // 2],
            (1 << 62).to_bytes(8, "little") + head[8:],
            made({k: v for k, v in header.items() if k != "dense"}),
            made({**header, "query": {**query, "shape": [1 << 40, 1 << 20]}}),
            made({**header, "query": {**query, "shape": query["shape"][::-1]}}),
            made({**header, "query": {**query, "dtype": "F64"}}),
            made({**header, "query": {**query, "data_offsets": [0, 1 << 60]}}),
            made({**header, "__metadata__": {"bitheads_head": "[" * 10_000}}),
            bytes.fromhex("1f8b0800") + bytes(1000),
            head[:-4] + np.array([np.nan], np.float32).tobytes(),
        ]
        for content in hostile:
            found = error(client.put("/v1/tasks/new", content=content, headers=ADMIN))
            assert found[:2] == (422, "bad_head"), (found, content[:100])
        assert client.put("/v1/tasks/new", content=head, headers=ADMIN).status_code == 204
        client.delete("/v1/tasks/new", headers=ADMIN)

    def test_without_admin_keys_nobody_may(self, head_bundle: Path, head: bytes) -> None:
        with running(head_bundle, admin_keys=()) as (client, _):
            response = client.put("/v1/tasks/new", content=head, headers=ADMIN)
        assert error(response)[:2] == (403, "forbidden")

    def test_uploads_are_there_after_a_restart(
        self, head_bundle: Path, head: bytes, tmp_path: Path
    ) -> None:
        kept = tmp_path / "kept"
        with running(head_bundle, heads=kept) as (client, _):
            client.put("/v1/tasks/new", content=head, headers=ADMIN)
            assert (kept / "new.safetensors").read_bytes() == head
        with running(head_bundle, heads=kept) as (client, _):
            assert "new" in predict(client, inputs=TEXT)["predictions"][0]
            client.delete("/v1/tasks/new", headers=ADMIN)
            assert list(kept.iterdir()) == []

    def test_a_replaced_head_changes_the_next_request(
        self, client: httpx.Client, offline: Engine, tmp_path: Path
    ) -> None:
        """And none that is under way fails."""
        contents = []
        for classes in (2, 4):
            path = tmp_path / f"{classes}.safetensors"
            write_head(random_head(offline.spec, "new", classes=classes), path)
            contents.append(path.read_bytes())
        client.put("/v1/tasks/new", content=contents[0], headers=ADMIN)

        def ask(i: int) -> int:
            found = predict(client, inputs=[TEXT] * (i % 5 + 1), return_probabilities=True)
            counts = {len(row["new"]["probabilities"]) for row in found["predictions"]}
            (count,) = counts
            return count

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, i) for i in range(200)]
            for i in range(1, 40):
                client.put("/v1/tasks/new", content=contents[i % 2], headers=ADMIN)
                assert ask(0) == (2, 4)[i % 2]
            assert {future.result() for future in asked} <= {2, 4}
        client.delete("/v1/tasks/new", headers=ADMIN)
