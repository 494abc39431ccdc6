"""Lanes: sessions that run at the same time give what one session gives."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitheads import BackendError, Engine
from bitheads.engine import open_encoder as open_encoder_module
from bitheads.engine.cpu_encoder import OPEN_LANES_FROM, CpuEncoder
from bitheads.engine.sessions import EncoderSession, open_lanes
from bitheads.engine.sessions.lanes import Lanes
from bitheads.engine.types import PlacedBatch, Stats, TokenBatch

two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="OpenVINO has no lanes on one processor core"
)
TEXTS = [" ".join(["word"] * (1 + i % 40)) + f" {i}" for i in range(200)]
BUDGET = 64
"""Tokens of a batch: of so many texts, far more batches than open lanes."""


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Iterator[Engine]:
    """In fp32, two threads."""
    with Engine.load(tiny_bundle, "openvino", threads=2, precision="fp32") as loaded:
        yield loaded


def lanes_of(engine: Engine) -> Lanes | None:
    encoder = engine._encoder
    assert isinstance(encoder, CpuEncoder)
    return encoder._lanes


def placed(count: int) -> list[PlacedBatch]:
    """Batches that nothing looks into."""
    token = np.ones((1, 1), np.int64)
    batch = TokenBatch(token, token, token, np.ones(1, np.int64))
    return [PlacedBatch(batch, np.array([i]), np.array([i])) for i in range(count)]


class Idle:
    """A session that is handed out and never run."""

    backend, precision = "none", "fp32"

    def run(self, batch: TokenBatch) -> list[Any]:
        raise AssertionError("not to be run")


def two_lanes() -> Lanes:
    sessions: list[EncoderSession] = [Idle(), Idle()]
    return Lanes(sessions)


@two_cores
def test_a_call_of_many_batches_runs_in_lanes_to_the_same_codes(tiny_bundle: Path) -> None:
    with (
        Engine.load(tiny_bundle, "openvino", threads=1, precision="fp32") as alone,
        Engine.load(tiny_bundle, "openvino", threads=2, precision="fp32") as several,
    ):
        expected = alone.encode(TEXTS, max_batch_tokens=BUDGET)
        got = several.encode(TEXTS, max_batch_tokens=BUDGET)
        assert lanes_of(alone) is None
        lanes = lanes_of(several)
        assert lanes is not None
        assert len(lanes) > 1
        assert expected.stats.num_batches >= OPEN_LANES_FROM
        assert np.array_equal(got.codes, expected.codes)
        counts = ("num_texts", "num_windows", "num_tokens", "num_batches", "num_padding")
        for name in counts:
            assert getattr(got.stats, name) == getattr(expected.stats, name)


@two_cores
def test_few_batches_open_no_lanes_but_use_those_there_are(tiny_bundle: Path) -> None:
    with Engine.load(tiny_bundle, "openvino", threads=2, precision="fp32") as engine:
        few = engine.encode(TEXTS[:8], max_batch_tokens=BUDGET)
        assert few.stats.num_batches > 1
        assert lanes_of(engine) is None
        engine.encode(TEXTS, max_batch_tokens=BUDGET)
        lanes = lanes_of(engine)
        assert lanes is not None
        used = []
        run = lanes.run
        lanes.run = lambda *args: used.append(1) or run(*args)  # type: ignore[method-assign]
        again = engine.encode(TEXTS[:8], max_batch_tokens=BUDGET)
        assert used == [1]
        assert np.array_equal(again.codes, few.codes)
        engine.encode(TEXTS[:1])
        assert used == [1]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_no_lanes(tiny_bundle: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a backend that has none, and for a graph that would take too much memory twice."""
    if backend == "openvino":
        monkeypatch.setattr(open_encoder_module, "MAX_LANES_GRAPH_BYTES", 1)
    with Engine.load(tiny_bundle, backend, threads=2, precision="fp32") as engine:
        features = engine.encode(TEXTS, max_batch_tokens=BUDGET)
        assert features.stats.num_batches >= OPEN_LANES_FROM
        lanes = lanes_of(engine)
        assert lanes is None or len(lanes) == 0


@two_cores
def test_lanes_share_one_compiled_graph(engine: Engine, tiny_bundle: Path) -> None:
    lanes = open_lanes(
        tiny_bundle / "encoder.onnx", engine.manifest.output_names, "openvino", "fp32", threads=2
    )
    assert len(lanes) == 2
    assert lanes[0]._compiled is lanes[1]._compiled  # type: ignore[attr-defined]
    assert lanes[0]._request is not lanes[1]._request  # type: ignore[attr-defined]


def test_lanes_run_at_the_same_time_and_answer_in_order() -> None:
    met = threading.Barrier(2, timeout=20)
    sessions = set()

    def encode(session: EncoderSession, batch: PlacedBatch) -> Stats:
        met.wait()  # returns only if another batch is running
        sessions.add(session)
        return Stats(num_windows=int(batch.texts[0]), encode_s=2.0, pack_s=1.0)

    lanes = two_lanes()
    found = list(lanes.run(encode, placed(10)))
    lanes.close()
    assert [stats.num_windows for stats in found] == list(range(10))
    assert len(sessions) == 2
    # Two lanes took two seconds each at the same time.
    assert sum(stats.encode_s for stats in found) == 10.0
    assert sum(stats.pack_s for stats in found) == 5.0


def test_batches_are_made_as_they_are_needed() -> None:
    made = 0

    def batches() -> Iterator[PlacedBatch]:
        nonlocal made
        for batch in placed(100):
            made += 1
            yield batch

    lanes = two_lanes()
    answers = lanes.run(lambda session, batch: Stats(num_windows=1), batches())
    for done in range(1, 50):
        next(answers)
        assert made <= done + 3
    answers.close()  # type: ignore[attr-defined]
    lanes.close()


@pytest.mark.parametrize("how", ["error", "closed"])
def test_nothing_runs_once_a_call_has_ended(how: str) -> None:
    running = 0
    started = []
    lock = threading.Lock()

    def encode(session: EncoderSession, batch: PlacedBatch) -> Stats:
        nonlocal running
        with lock:
            running += 1
            started.append(int(batch.texts[0]))
        threading.Event().wait(0.01)
        with lock:
            running -= 1
        if how == "error" and batch.texts[0] == 3:
            raise BackendError("out of order")
        return Stats()

    lanes = two_lanes()
    answers = lanes.run(encode, placed(50))
    if how == "error":
        with pytest.raises(BackendError, match="out of order"):
            list(answers)
    else:
        next(answers)
        answers.close()  # type: ignore[attr-defined]
    assert running == 0
    count = len(started)
    assert count < 10
    assert list(lanes.run(lambda session, batch: Stats(), placed(3))) == [Stats()] * 3
    assert len(started) == count
    lanes.close()


def test_calls_from_several_threads_share_lanes(engine: Engine) -> None:
    expected = engine.encode(TEXTS, max_batch_tokens=BUDGET).codes
    barrier = threading.Barrier(4)

    def encode(_: int) -> Any:
        barrier.wait()
        return engine.encode(TEXTS, max_batch_tokens=BUDGET).codes

    with ThreadPoolExecutor(4) as pool:
        for codes in pool.map(encode, range(4)):
            assert np.array_equal(codes, expected)


def test_a_lane_that_fails_is_a_backend_error(engine: Engine) -> None:
    class Broken(Idle):
        backend = "openvino"

        def run(self, batch: TokenBatch) -> list[Any]:
            raise RuntimeError("no memory")

    encoder = CpuEncoder(Broken(), engine.spec, None, 2, lambda: [Broken(), Broken()])
    with (
        Engine(engine.manifest, engine._tokenizer, encoder) as broken,
        pytest.raises(BackendError, match=r"(?s)openvino fp32 failed on a batch.*no memory"),
    ):
        broken.encode(TEXTS, max_batch_tokens=BUDGET)
