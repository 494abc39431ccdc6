"""What goes wrong around the encoder: a lane goes on, or the server says so and ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import running

from bitheads import Engine
from bitheads.engine.serve import scheduler as scheduler_module
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.fair_queue import FairQueue
from bitheads.engine.serve.metrics import Metrics
from bitheads.engine.serve.request import Request
from bitheads.engine.serve.scheduler import Closed, Scheduler
from bitheads.engine.serve.settings import Settings

LANES = 2
TEXTS = [f"A text, number {i}." for i in range(40)]


@pytest.fixture
def engine(head_bundle: Path) -> Iterator[Engine]:
    """With lanes where there are two cores."""
    with Engine.load(head_bundle, "openvino", threads=LANES, precision="fp32") as engine:
        yield engine


def request(engine: Engine, texts: list[Any]) -> Request:
    return Request(engine.tokenizer(texts), engine.choose_heads(["topic"]), False)


def raise_times(count: int, function: Any) -> Any:
    """The function, but for its first calls."""
    left = [None] * count

    def call(*arguments: Any, **options: Any) -> Any:
        if left:
            left.pop()
            raise ZeroDivisionError("a defect of the tests")
        return function(*arguments, **options)

    return call


def test_lanes_outlive_results_that_cannot_be_handed_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as there are lanes, and more."""
    broken = raise_times(3 * LANES, scheduler_module.make_answer)
    monkeypatch.setattr(scheduler_module, "make_answer", broken)
    scheduler = Scheduler(engine, 10**6, max_batch_tokens=64)
    try:
        for _ in range(3 * LANES):
            future = scheduler.submit(request(engine, TEXTS))
            with pytest.raises(ZeroDivisionError):
                future.result(60)
        assert scheduler.submit(request(engine, TEXTS)).result(60).predictions
        assert scheduler.failure is None
        assert scheduler.queued_tokens == 0
    finally:
        scheduler.close()


def test_answers_do_not_depend_on_who_counts_them(head_bundle: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "batch", raise_times(5, Metrics.batch))
        with running(head_bundle) as (client, _):
            for _ in range(7):
                answer = client.post("/v1/predict", json={"inputs": "A text."})
                assert answer.status_code == 200
            assert client.get("/health/live").status_code == 200


def test_a_lane_that_ends_ends_all_that_waits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is in the lost batch, one that is in the queue, and one that comes after."""
    scheduler = Scheduler(engine, 10**6, max_batch_tokens=64)
    take, may_take = FairQueue.take, threading.Event()

    def lose(queue: Any, *arguments: Any) -> Any:
        assert may_take.wait(60)
        take(queue, *arguments)
        raise MemoryError("a defect of the tests")

    monkeypatch.setattr(FairQueue, "take", lose)
    try:
        futures = [scheduler.submit(request(engine, ["A text."]))]
        may_take.set()
        with pytest.raises(MemoryError):
            futures[0].result(60)
        assert isinstance(scheduler.failure, MemoryError)
        with pytest.raises(Closed):
            scheduler.submit(request(engine, ["A text."]))
    finally:
        scheduler.close()
    assert scheduler.queued_tokens == 0


SERVER = """
import sys
from bitheads.engine.commands import serve
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.fair_queue import FairQueue

def take(*arguments):
    raise MemoryError("a defect of the tests")

FairQueue.take = take
sys.exit(serve.main(sys.argv[1:]))
"""


def test_a_server_that_cannot_answer_says_so_and_ends(head_bundle: Path) -> None:
    command = [sys.executable, "-c", SERVER, "--bundle", str(head_bundle), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        url = ""
        for line in process.stdout:
            if "http://" in line:
                url = "http://" + line.split("http://")[1].split(": ")[0].split('"')[0].strip()
                break
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/health/ready").status_code == 200
            assert client.post("/v1/predict", json={"inputs": "A text."}).status_code == 500
            statuses = set()
            while process.poll() is None:  # it ends within a tenth of a second
                try:
                    statuses.add(client.get("/health/live").status_code)
                    statuses.add(client.get("/v2/health/live").status_code)
                    statuses.add(client.get("/health/ready").status_code)
                except httpx.TransportError:
                    break
                time.sleep(0.01)
            assert statuses <= {503}
        log = process.stdout.read()
        assert process.wait(60) == 1
        assert "a lane of the encoder ended: nothing is answered" in log
        assert "error: the server ended: a lane of the encoder did (MemoryError" in log
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_health_of_a_server_that_cannot_answer(
    head_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without uvicorn, which would end it."""
    paths = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
    engine = Engine.load(head_bundle, "onnxruntime")
    server = Server(engine, Settings(bundle=head_bundle, log="none"))

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(server.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [(await client.get(path)).status_code for path in paths]

    try:
        assert asyncio.run(ask()) == [200] * 4
        monkeypatch.setattr(server._scheduler, "_failure", MemoryError())
        assert asyncio.run(ask()) == [503] * 4
    finally:
        server.close()


def test_a_server_of_another_process_says_so(
    head_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a worker that was forked from a process that had made the server."""
    with running(head_bundle) as (client, server):
        monkeypatch.setattr(server._scheduler, "_process", 1)
        answered = client.post("/v1/predict", json={"inputs": "A text."})
        assert answered.status_code == 500
        error = answered.json()["error"]
        assert error["code"] == "engine_failed"
        assert "this scheduler was loaded in process 1" in error["message"]
        monkeypatch.undo()
        assert client.post("/v1/predict", json={"inputs": "A text."}).status_code == 200
