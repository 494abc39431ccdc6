"""The command itself, in a process of its own: its log, its end, its errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import ServerProcess

from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.install import how_to_install


@pytest.mark.parametrize(
    ("backend", "workers", "answers"),
    [
        ("auto", 1, 60),
        ("openvino", 1, 1),
        ("openvino", 1, 37),
        ("onnxruntime", 1, 9),
        *[("openvino", 2, 37), ("onnxruntime", 2, 9)][: 2 * (count_cores() > 1)],
    ],
)
def test_sigterm_under_load_answers_what_was_accepted(
    head_bundle: Path, backend: str, workers: int, answers: int
) -> None:
    """A request is answered, refused with 503, or its connection was closed before it was read."""
    options = ["--bundle", str(head_bundle), "--threads", "2", "--backend", backend]
    with ServerProcess(*options, "--workers", str(workers)) as server:
        statuses: list[int | str] = []
        ending = threading.Event()

        def ask(_: int) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while not ending.is_set():
                    try:
                        response = client.post("/v1/predict", json={"inputs": ["a text"] * 40})
                        statuses.append(response.status_code)
                        if response.status_code == 200:
                            assert len(response.json()["predictions"]) == 40
                    except httpx.ConnectError:
                        return
                    except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                        # Idle connections are closed: what was on its way there was not read.
                        statuses.append(type(error).__name__)

        with ThreadPoolExecutor(12) as pool:
            asking = [pool.submit(ask, i) for i in range(12)]
            while len(statuses) < answers:
                time.sleep(0.01)
            code = server.end(signal.SIGTERM)
            ending.set()
            for future in asking:
                future.result()
        assert code == 0
        log = server.log()
        answered = [line for line in log if line["message"] == "request"]
        assert {line["status"] for line in answered} <= {200, 503}
        accepted = sum(isinstance(status, int) for status in statuses)
        assert len(answered) == accepted, "a request that was read had no answer"
        assert statuses.count(200) >= answers


def test_the_log_is_json_a_line_a_request(head_bundle: Path) -> None:
    with ServerProcess("--bundle", str(head_bundle), BITHEADS_SERVE_MAX_TEXTS="5") as server:
        headers = {"x-request-id": "the-one"}
        httpx.post(f"{server.url}/v1/predict", json={"inputs": ["a", "b"]}, headers=headers)
        httpx.post(f"{server.url}/v1/predict", json={"inputs": ["a"] * 6})
        assert server.end(signal.SIGINT) == 0
        first, second = (line for line in server.log() if line["message"] == "request")
    assert first["request_id"] == "the-one"
    assert (first["route"], first["status"], first["texts"]) == ("/v1/predict", 200, 2)
    assert first["tokens"] > 4
    assert first["ms"] > 0
    assert (second["status"], second["error"]) == (413, "too_large")


def test_killed_clients_do_no_harm(head_bundle: Path) -> None:
    load = (
        "import httpx, sys\n"
        "with httpx.Client(base_url=sys.argv[1], timeout=60) as client:\n"
        "    while True:\n"
        "        client.post('/v1/predict', json={'inputs': ['a text'] * 50})\n"
    )
    with ServerProcess("--bundle", str(head_bundle)) as server:
        for _ in range(3):
            clients = [subprocess.Popen([sys.executable, "-c", load, server.url]) for _ in range(3)]
            time.sleep(0.7)
            for client in clients:
                client.kill()
                client.wait()
            answer = httpx.post(f"{server.url}/v1/predict", json={"inputs": "a"}, timeout=60)
            assert answer.status_code == 200
        assert server.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "none"], "error: bundle none"),
        (["--port", "x"], "error: --port or BITHEADS_SERVE_PORT: got 'x'"),
        (["--backend", "none"], "error: backend: got 'none'"),
    ],
)
def test_what_cannot_be_served(head_bundle: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "bitheads", "serve", "--bundle", str(head_bundle), *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert message in found.stderr


def test_a_port_that_is_taken(head_bundle: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "bitheads", "serve", "--bundle", str(head_bundle)]
        found = subprocess.run(
            [*command, "--port", port], capture_output=True, text=True, timeout=60, check=False
        )
    assert found.returncode == 1
    assert f"--port {port}: Address already in use. Choose another port" in found.stderr


def test_without_the_extra_it_says_what_to_type(head_bundle: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'fastapi' else find(name, *a)\n"
        "from bitheads.engine.commands.serve import main\n"
        f"sys.exit(main(['--bundle', {str(head_bundle)!r}]))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ},
    )
    assert found.returncode == 1
    assert f"the server needs fastapi. Type: {how_to_install('serve')}" in found.stderr
