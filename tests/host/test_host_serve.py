"""The example server: asked over sockets, it answers as Python's engine does."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from random_heads import random_head, random_two_texts_head

from bitheads import Engine
from bitheads.engine.answer_parts import json_answers
from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.kinds import Decision
from bitheads.engine.types import Text

CONNECTIONS = 16
PATIENCE_S = 120.0
SINGLES = [f"the tide was {'far ' * (i % 13)}out, {i}" for i in range(40)]
PAIRS = [(text, "a boat came in") for text in SINGLES[:20]]
LONG = [f"{i} " + "sailors and boats " * 60 for i in range(1000)]
"""Some 30,000 tokens and more, whatever the encoder's maximum length is."""


@pytest.fixture(scope="module")
def program(host_build: Path) -> Path:
    program = host_build / "serve"
    if not program.exists():
        pytest.fail("serve was not built: apt-get install libcpp-httplib-dev")
    return program


@pytest.fixture(scope="module")
def bundle(host_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads of every kind and form."""
    folder = tmp_path_factory.mktemp("served") / "bundle"
    shutil.copytree(host_bundle, folder)
    spec = read_manifest(folder).spec
    for head in (
        random_head(spec, "has", kind="multi_label", decision=Decision(thresholds=(-9, 0, 9))),
        random_head(spec, "rated", kind="ordinal", decision=Decision(cuts=(-0.5, 0.5))),
        random_head(
            spec,
            "measured",
            labels=(),
            kind="regression",
            decision=Decision(value_range=(0, 9)),
        ),
        random_head(spec, "found", kind="token_label", seed=3),
        random_head(spec, "unsure", decision=Decision(abstain_below=0.4)),
        random_two_texts_head(spec, "alike"),
    ):
        write_head(head, folder / "heads" / f"{head.task}.safetensors")
    return folder


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[Engine]:
    with Engine.load(bundle, backend="openvino", precision="fp32") as loaded:
        yield loaded


class Server:
    """The program, in fp32, which gives the same bits in any batch."""

    def __init__(self, program: Path, bundle: Path) -> None:
        command = [program, bundle, "0", "fp32"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith("listening on http://127.0.0.1:"), said
        self.port = int(said.rpartition(":")[2])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        """It ends by itself, once it is told to."""
        with self.process:  # closes what was read from it
            self.process.terminate()
            assert self.process.wait(PATIENCE_S) == 0

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def ask(
        self,
        body: bytes,
        connection: http.client.HTTPConnection | None = None,
        path: str = "/v1/predict",
        **headers: str,
    ) -> tuple[int, Any]:
        asked = connection or self.connect()
        asked.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = asked.getresponse()
        found = answer.status, json.loads(answer.read())
        if connection is None:
            asked.close()
        return found

    def requests_read(self) -> int:
        """Connections of which the server has read all that was sent."""
        found = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            is_ours = local.endswith(f":{self.port:04X}") and state == "01"
            found += is_ours and int(queues.partition(":")[2], 16) == 0
        return found


@pytest.fixture(scope="module")
def server(program: Path, bundle: Path) -> Iterator[Server]:
    with Server(program, bundle) as running:
        yield running


def asked(texts: Sequence[Text] | str, tasks: Sequence[str] | None = None) -> bytes:
    content: dict[str, Any] = {"inputs": texts}
    return json.dumps(content if tasks is None else {**content, "tasks": tasks}).encode()


def expected_of(engine: Engine, texts: list[Text], tasks: Sequence[str] | None = None) -> Any:
    found = {task: json_answers(one) for task, one in engine.predict(texts, tasks).items()}
    return [{task: answers[i] for task, answers in found.items()} for i in range(len(texts))]


def assert_near(got: Any, expected: Any) -> None:
    """The same but for the last digit of a probability."""
    assert type(got) is type(expected) or isinstance(expected, (float, tuple))
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert_near(got[name], value)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_near(one, other)
    else:
        assert got == (pytest.approx(expected, abs=3e-6) if isinstance(got, float) else expected)


@pytest.mark.parametrize("texts", [SINGLES, PAIRS], ids=["texts", "pairs"])
def test_every_task_answers_as_in_python(server: Server, engine: Engine, texts: list[Text]) -> None:
    status, answer = server.ask(asked(texts))
    assert status == 200
    assert answer["spec_id"] == engine.spec.id
    assert_near(answer["predictions"], expected_of(engine, texts))
    kinds = {engine.tasks[task].kind for task in answer["predictions"][0]}
    assert len(kinds) == (5 if texts is SINGLES else 1)


def test_one_text_and_named_tasks(server: Server, engine: Engine) -> None:
    status, answer = server.ask(asked(SINGLES[3], ["averages"]))
    assert status == 200
    assert_near(answer["predictions"], expected_of(engine, [SINGLES[3]], ["averages"]))
    assert server.ask(asked([]))[1]["predictions"] == []


def test_many_connections_at_once(server: Server, engine: Engine) -> None:
    expected = expected_of(engine, [*SINGLES])
    start = threading.Barrier(CONNECTIONS)

    def ask(number: int) -> None:
        connection = server.connect()
        start.wait(PATIENCE_S)
        for i in range(number, number + 25):
            chosen = [i % len(SINGLES), 7 * i % len(SINGLES)]
            status, answer = server.ask(asked([SINGLES[j] for j in chosen]), connection)
            assert status == 200
            assert_near(answer["predictions"], [expected[j] for j in chosen])
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(ask, i) for i in range(CONNECTIONS)]:
            done.result()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_request"),
        (b"{", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b"{}", 400, "bad_request"),
        (b'{"inputs": 3}', 400, "bad_request"),
        (b'{"inputs": [3]}', 400, "bad_request"),
        (b'{"inputs": [["a", "b", "c"]]}', 400, "bad_request"),
        (b'{"inputs": ["a", ["a", "b"]]}', 400, "bad_request"),
        (b'{"inputs": "\xff"}', 400, "bad_request"),
        (b'{"inputs": "\\ud800"}', 400, "bad_request"),
        (b'{"inputs": "a", "tasks": "averages"}', 400, "bad_request"),
        (b'{"inputs": "a", "tasks": ["pairs"]}', 400, "bad_request"),
        (b'{"inputs": "a", "tasks": ["nothing"]}', 404, "unknown_task"),
        (b"[" * 100_000, 400, "bad_request"),
        (b'{"inputs": "' + b"a" * (8 << 20) + b'"}', 413, "too_large"),
    ],
)
def test_what_is_refused(server: Server, body: bytes, status: int, code: str) -> None:
    got, answer = server.ask(body)
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"]
    assert server.ask(asked("a"))[0] == 200


def test_other_paths_and_encodings(server: Server) -> None:
    assert server.ask(b"{}", path="/v2/predict")[0] == 404
    assert server.ask(asked("a"), **{"Content-Encoding": "gzip"})[0] == 415
    assert server.ask(asked("a"))[0] == 200


def test_a_full_queue(server: Server) -> None:
    """What is large alone is taken; what would wait for it is not."""
    found: set[int] = set()

    def ask() -> None:
        for _ in range(50):
            if found == {200, 429}:
                return
            found.add(server.ask(asked(LONG, ["averages"]))[0])

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask) for _ in range(4)]:
            done.result()
    assert found == {200, 429}


def test_requests_that_run_are_answered_when_it_is_told_to_stop(
    program: Path, bundle: Path, engine: Engine
) -> None:
    expected = expected_of(engine, [*LONG[:60]])
    with Server(program, bundle) as server:
        connections = [server.connect() for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.request("POST", "/v1/predict", asked(LONG[:60]))
        ends_s = time.monotonic() + PATIENCE_S
        while server.requests_read() < CONNECTIONS:
            assert time.monotonic() < ends_s
        server.process.send_signal(signal.SIGTERM)
        for connection in connections:
            answer = connection.getresponse()
            assert answer.status == 200
            assert_near(json.loads(answer.read())["predictions"], expected)
            connection.close()
        assert server.process.wait(PATIENCE_S) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))


def test_a_port_that_is_in_use(server: Server, program: Path, bundle: Path) -> None:
    done = subprocess.run(
        [program, bundle, str(server.port)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "the port cannot be had: is it in use?\n")
