"""What clients send comes back, into logs and into metrics, as little as it may and as itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ADMIN_KEY, ServerProcess, running
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.serve.errors import MAX_MESSAGE

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/predict", {"inputs": "a", "tasks": [LONG]}),
        ("/v1/predict", {"inputs": "a", LONG: 1}),
        ("/v1/predict_features", {"features": [], "spec_id": LONG}),
        ("/v1/" + LONG[:5000], {}),
        ("/v2/models/tiny/infer", {"inputs": [{"name": LONG}]}),
        (
            "/v2/models/tiny/infer",
            {"inputs": [{"name": "text", "datatype": LONG, "shape": [1], "data": ["a"]}]},
        ),
        (
            "/v2/models/tiny/infer",
            {
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}],
                "outputs": [{"name": LONG}],
            },
        ),
    ],
)
def test_errors_echo_no_more_than_finds_it(client: httpx.Client, path: str, body: Any) -> None:
    answer = client.post(path, json=body)
    assert 400 <= answer.status_code < 500
    assert len(answer.content) < 2 * MAX_MESSAGE


@pytest.mark.parametrize("digits", [100, 4_301, 100_000])
def test_numbers_of_any_length(client: httpx.Client, digits: int) -> None:
    number = "1" * digits
    tensor = '{"name":"text","datatype":"BYTES","shape":[NUMBER],"data":["a"]}'
    for path, body in (
        ("/v1/predict", '{"inputs":NUMBER}'),
        ("/v1/predict", '{"inputs":["a",NUMBER]}'),
        ("/v1/predict", '{"inputs":"a","return_probabilities":NUMBER}'),
        (
            "/v1/predict_features",
            '{"spec_id":"","features":[{"codes":"","num_tokens":NUMBER}]}',
        ),
        ("/v2/models/tiny/infer", '{"inputs":[' + tensor + "]}"),
        ("/v2/models/tiny/infer", '{"id":NUMBER,"inputs":[]}'),
    ):
        answer = client.post(path, content=body.replace("NUMBER", number))
        assert 400 <= answer.status_code < 500, answer.text
        assert len(answer.content) < 2 * MAX_MESSAGE


def test_ids_that_could_be_taken_for_a_line_are_replaced(client: httpx.Client) -> None:
    for given in ("a status=200", 'a"', "a=b", "x" * 101, "a\tb", "a;b"):
        answer = client.get("/health/live", headers={"x-request-id": given})
        assert answer.headers["x-request-id"] != given
    given = "trace-1.2_3:4/5+6@7"
    answer = client.get("/health/live", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given


def test_a_line_of_text_a_request(head_bundle: Path) -> None:
    with ServerProcess("--bundle", str(head_bundle), "--log", "text") as server:
        forged = "x status=200 error=none"
        httpx.get(f"{server.url}/none", headers={"x-request-id": forged})
        assert server.end(signal.SIGTERM) == 0
        (line,) = [line for line in server.lines if " request " in line]
        fields = dict(word.split("=", 1) for word in line.split(" request ")[1].split())
        assert fields["status"] == "404"
        assert fields["error"] == "not_found"
        assert "status=200" not in line


@pytest.fixture
def head(offline: Engine, tmp_path: Path) -> bytes:
    path = tmp_path / "new.safetensors"
    write_head(random_head(offline.spec, "new"), path)
    return path.read_bytes()


def test_deleted_tasks_are_not_counted_any_more(client: httpx.Client, head: bytes) -> None:
    assert client.put("/v1/tasks/new", content=head, headers=ADMIN).status_code == 204
    assert client.post("/v1/predict", json={"inputs": "a"}).status_code == 200
    assert 'task="new"' in client.get("/metrics").text
    assert client.delete("/v1/tasks/new", headers=ADMIN).status_code == 204
    assert 'task="new"' not in client.get("/metrics").text
    assert client.put("/v1/tasks/new", content=head, headers=ADMIN).status_code == 204
    assert client.delete("/v1/tasks/new", headers=ADMIN).status_code == 204  # never asked


def test_heads_that_cannot_be_kept_are_the_servers_fault(
    head_bundle: Path, head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "heads"
    with running(head_bundle, heads=folder) as (client, _):
        assert client.put("/v1/tasks/new", content=head, headers=ADMIN).status_code == 204
        (folder / "new.safetensors").rename(tmp_path / "kept")
        (folder / "new.safetensors").mkdir()  # which can be neither replaced nor removed
        (folder / "new.safetensors" / "x").touch()
        for answer in (
            client.put("/v1/tasks/new", content=head, headers=ADMIN),
            client.delete("/v1/tasks/new", headers=ADMIN),
        ):
            assert answer.status_code == 507
            assert answer.json()["error"]["code"] == "cannot_be_kept"
        assert "new" in client.get("/v1/tasks").text  # it was not forgotten
        monkeypatch.setattr("tempfile.tempdir", os.fspath(tmp_path / "none"))
        answer = client.put("/v1/tasks/new", content=head, headers=ADMIN)
        assert answer.status_code == 507
        assert "TMPDIR" in answer.json()["error"]["message"]
