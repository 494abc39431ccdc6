"""A closed engine: its memory is given back, and every call is one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_head

from bitheads import ClosedError, Engine, InputError
from bitheads.engine.heads.cpu import HeadThreads
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.serve.scheduler import Scheduler
from bitheads.engine.types import PlacedBatch

TEXTS = [f"Short text number {i}" for i in range(64)]
BUDGET = 16
"""Tokens of a batch: enough batches for lanes, where there are any."""


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Engine]:
    with Engine.load(tiny_bundle, request.param, threads=2, precision="fp32") as loaded:
        yield loaded


def test_every_call_is_an_error(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    write_head(random_head(engine.spec), path)
    engine.add_head(path)
    head = engine.read_head(path)
    features = engine.encode(TEXTS, max_batch_tokens=BUDGET)
    name, spec = engine.backend, engine.spec
    stream = engine.encode_stream(TEXTS, chunk_texts=8)
    next(stream)
    runners = [engine.encoder.open_runners()[0], *engine.encoder.open_runners()[1]]
    encoder, batch = engine.encoder, PlacedBatch(*[None] * 3)  # type: ignore[arg-type]
    engine.close()
    engine.close()
    encoder.close()
    calls: list[Callable[[], Any]] = [
        lambda: engine.encode(TEXTS),
        lambda: engine.encode_stream(TEXTS),
        lambda: next(stream),
        lambda: engine.predict(TEXTS),
        lambda: engine.predict_features(features),
        lambda: engine.add_head(path),
        lambda: engine.read_head(path),
        lambda: engine.use_head(head),
        lambda: engine.remove_head(head.task),
        lambda: engine.choose_heads(None),
        lambda: engine.tasks,
        lambda: engine.tokenizer,
        lambda: engine.encoder,
        lambda: encoder.encode([]),
        lambda: encoder.predict(features, [head]),
        encoder.open_runners,
        *(lambda run=run: run(batch) for run in runners),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match=r"is closed: got a call.*Load it again"):
            call()
    assert (engine.backend, engine.spec) == (name, spec)


def test_threads_of_heads(engine: Engine, tmp_path: Path) -> None:
    features, head = engine.encode(TEXTS), engine.encoder.load_head(random_head(engine.spec))
    threads = HeadThreads(2)
    threads.predict(features, [head])
    threads.close()
    threads.close()
    with pytest.raises(ClosedError):
        threads.predict(features, [head])


def test_it_waits_for_calls_of_other_threads(engine: Engine) -> None:
    expected = engine.encode(TEXTS, max_batch_tokens=BUDGET).codes
    began = threading.Barrier(5)

    def encode() -> str:
        began.wait()
        try:
            for _ in range(1000):
                assert np.array_equal(engine.encode(TEXTS, max_batch_tokens=BUDGET).codes, expected)
        except ClosedError:
            return "closed"
        return "never closed"

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(encode) for _ in range(4)]
        began.wait()
        engine.close()
        assert [call.result() for call in calls] == ["closed"] * 4


def test_within_a_call_it_would_wait_for_itself(engine: Engine) -> None:
    class Texts(list[str]):
        def __iter__(self) -> Iterator[str]:
            engine.close()
            return super().__iter__()

    with pytest.raises(InputError, match=r"close\(\): got a call of it within another call"):
        engine.encode(Texts(TEXTS))
    assert len(engine.encode(TEXTS)) == len(TEXTS)


def test_a_scheduler_that_was_closed_keeps_no_session(engine: Engine) -> None:
    scheduler = Scheduler(engine, 1000)
    scheduler.close()
    held = [value for value in vars(scheduler).values() if "_encode_batch" in repr(value)]
    assert held == []


MEASURE = """
import json, sys
from bitheads import Engine

def resident_mb():
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

import bitheads.engine.sessions.openvino, bitheads.engine.sessions.onnxruntime
texts = [f"Short text number {i} " * (1 + i % 9) for i in range(64)]
before, used, closed = resident_mb(), [], []
for _ in range(5):
    with Engine.load(sys.argv[1], sys.argv[2], precision="fp32") as engine:
        engine.predict(texts)
        engine.encode(texts, max_batch_tokens=64)
        used.append(resident_mb())
    closed.append(resident_mb())
print(json.dumps([before, used, closed]))
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_memory_comes_back(minilm_bundle: Path, backend: str) -> None:
    """Resident, of all-MiniLM-L6-v2: of 450 MB with lanes, 70 stay, which are OpenVINO's own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(minilm_bundle), backend],
        capture_output=True,
        text=True,
        check=True,
    )
    before, used, closed = json.loads(done.stdout)
    taken = used[0] - before
    assert taken > 100
    assert closed[0] - before < taken / 2
    assert closed[-1] - closed[0] < taken / 4
