"""The scheduler on real encoders: who runs when, and what becomes of each request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_span_head, random_two_texts_head

from bitheads import Engine
from bitheads.engine.errors import BackendError
from bitheads.engine.serve.request import Answer, Request
from bitheads.engine.serve.room import QueueFull
from bitheads.engine.serve.scheduler import BatchReport, Closed, Scheduler
from bitheads.engine.texts.apart import take_apart
from bitheads.engine.types import PlacedBatch, Stats

ALIKE = [f"A boat of {i} sailors." for i in range(10)]  # of one length
TEXTS = [" ".join(["word"] * (1 + 7 * i % 23)) + f" number {i}." for i in range(60)]


def request(engine: Engine, texts: list[Any], features: bool = True) -> Request:
    return Request(engine.tokenizer(texts), engine.choose_heads(None), features)


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request: pytest.FixtureRequest, head_bundle: Path) -> Iterator[Engine]:
    """Without lanes and with them, in fp32: answers are the same to the bit."""
    with Engine.load(head_bundle, request.param, threads=2, precision="fp32") as engine:
        yield engine


class Gate:
    """Holds an engine's encoder until it is opened; what ran is in `batches`."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.is_open = threading.Event()
        self.arrived = threading.Semaphore(0)
        run_on_all, lanes = engine.encoder.open_runners()
        made = self._hold("all", run_on_all), [self._hold("lane", lane) for lane in lanes]
        monkeypatch.setattr(engine.encoder, "open_runners", lambda: made)
        self.num_lanes = len(lanes)

    def _hold(self, name: str, run: Any) -> Any:
        is_warm = False

        def held(batch: PlacedBatch) -> Stats:
            nonlocal is_warm
            if not is_warm:
                is_warm = True
                return Stats()
            self.batches.append((name, batch.texts.size))
            self.arrived.release()
            assert self.is_open.wait(60)
            if self.error is not None:
                raise self.error
            stats: Stats = run(batch)
            return stats

        return held


@pytest.fixture
def gate(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(engine, monkeypatch)


def answers(futures: list[Future[Answer]]) -> list[Answer]:
    return [future.result(60) for future in futures]


def test_answers_are_those_of_the_engine(engine: Engine) -> None:
    """Whatever a text's batch was, and the other requests."""
    reports: list[BatchReport] = []
    scheduler = Scheduler(engine, 10**6, max_batch_tokens=128, report=reports.append)
    try:
        parts = [TEXTS[i : i + 1 + i // 4 % 4] for i in range(0, 56, 4)]
        found = answers([scheduler.submit(request(engine, part)) for part in parts])
    finally:
        scheduler.close()
    for part, answer in zip(parts, found, strict=True):
        features = engine.encode(part)
        assert answer.features is not None
        np.testing.assert_array_equal(answer.features.codes, features.codes)
        np.testing.assert_array_equal(answer.features.offsets, features.offsets)
        expected = engine.predict_features(features)
        assert {*answer.predictions} == {"topic", "mood", "same"}
        assert not answer.predictions["same"].answered.any()  # for pairs, and there are none
        for task, prediction in expected.items():
            np.testing.assert_array_equal(answer.predictions[task].logits, prediction.logits)
        assert answer.stats.encode_s > 0
        assert answer.queue_s >= 0
    assert sum(report.rows for report in reports) == sum(map(len, parts))
    tokens = sum(report.stats.num_tokens for report in reports)
    assert tokens == sum(int(answer.features.offsets[-1]) for answer in found if answer.features)


def test_a_text_alone_has_all_cores(engine: Engine, gate: Gate) -> None:
    gate.is_open.set()
    scheduler = Scheduler(engine, 10**6)
    try:
        for text in TEXTS[:5]:
            scheduler.submit(request(engine, [text])).result(60)
    finally:
        scheduler.close()
    assert gate.batches == [("all", 1)] * 5


def test_many_texts_go_through_the_lanes(engine: Engine, gate: Gate) -> None:
    scheduler = Scheduler(engine, 10**6, max_batch_tokens=64)
    try:
        future = scheduler.submit(request(engine, TEXTS))
        running = max(1, gate.num_lanes)
        for _ in range(running):
            assert gate.arrived.acquire(timeout=60)
        assert not gate.arrived.acquire(timeout=0.05), "more batches than lanes at a time"
        gate.is_open.set()
        future.result(60)
    finally:
        gate.is_open.set()
        scheduler.close()
    assert sum(rows for _, rows in gate.batches) == len(TEXTS)
    assert {name for name, _ in gate.batches[:-1]} == {"lane" if gate.num_lanes else "all"}


def test_what_came_meanwhile_is_one_batch(engine: Engine, gate: Gate) -> None:
    scheduler = Scheduler(engine, 10**6)
    try:
        first = scheduler.submit(request(engine, TEXTS[:1]))
        assert gate.arrived.acquire(timeout=60)
        others = [scheduler.submit(request(engine, [text])) for text in ALIKE[:7]]
        gate.is_open.set()
        answers([first, *others])
    finally:
        gate.is_open.set()
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [1, 7]


def test_heads_read_the_texts_of_those_who_ask_them(
    engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: in one batch of three requests, each head's texts are those that it was asked of."""
    asked: dict[str, int] = {}
    heads = {head.task: head for head in engine.choose_heads(["topic", "mood"])}
    heads["names"] = engine.encoder.load_head(random_span_head(engine.spec))
    heads["alike"] = engine.encoder.load_head(random_two_texts_head(engine.spec, "alike"))
    predict, text_vectors = engine.encoder.predict, engine.encoder.text_vectors

    def count_predict(features: Any, some: Any) -> Any:
        for head in some:
            asked[head.task] = asked.get(head.task, 0) + len(features)
        return predict(features, some)

    def count_vectors(features: Any, some: Any) -> Any:
        for head in some:
            asked[head.task] = asked.get(head.task, 0) + len(features)
        return text_vectors(features, some)

    def made(texts: list[Any], tasks: list[str], words: bool = False) -> Request:
        chosen = [heads[task] for task in tasks]
        return Request(engine.tokenizer(texts, words=words), chosen, False)

    texts = ALIKE
    scheduler = Scheduler(engine, 10**6)
    try:
        first = scheduler.submit(made(TEXTS[:1], []))
        assert gate.arrived.acquire(timeout=60)
        monkeypatch.setattr(engine.encoder, "predict", count_predict)
        monkeypatch.setattr(engine.encoder, "text_vectors", count_vectors)
        placed, to_encode = take_apart([(texts[8], texts[9])], [heads["alike"]])
        pairs = Request(engine.tokenizer(to_encode), [heads["alike"]], False, apart=placed)
        futures = [
            scheduler.submit(made(texts[:2], ["topic"])),
            scheduler.submit(made(texts[2:5], ["mood", "topic"])),
            scheduler.submit(made(texts[5:8], ["names", "mood"], words=True)),
            scheduler.submit(pairs),
        ]
        gate.is_open.set()
        answers([first])
        found = answers(futures)
    finally:
        gate.is_open.set()
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [1, 10]
    assert asked == {"topic": 2 + 3, "mood": 3 + 3, "names": 3, "alike": 2}
    monkeypatch.undo()
    for part, answer in zip((texts[:2], texts[2:5], texts[5:8]), found, strict=False):
        features = engine.encode(part, words=True)
        for task, prediction in answer.predictions.items():
            expected = engine.encoder.predict(features, [heads[task]])[task]
            np.testing.assert_array_equal(prediction.logits, expected.logits)
    vectors = engine.encoder.text_vectors(engine.encode(texts[8:]), [heads["alike"]])
    (expected,) = engine.encoder.pair_outputs(vectors, np.array([[0, 1]]), [heads["alike"]])
    np.testing.assert_array_equal(found[3].predictions["alike"].logits, expected)


def test_a_batch_waits_for_requests_that_are_being_read(engine: Engine, gate: Gate) -> None:
    gate.is_open.set()
    scheduler = Scheduler(engine, 10**6, max_wait_s=60.0)
    try:
        scheduler.announce()
        scheduler.announce()
        first = scheduler.submit(request(engine, ALIKE[:1]))
        scheduler.retract()
        assert not gate.arrived.acquire(timeout=0.1)
        second = scheduler.submit(request(engine, ALIKE[1:2]))
        scheduler.retract()
        answers([first, second])
        # Not longer than it may, and not at all when nobody is announced.
        scheduler._max_wait_s = 0.02
        scheduler.announce()
        scheduler.submit(request(engine, ALIKE[2:3])).result(60)
    finally:
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [2, 1]


def test_a_full_queue_refuses(engine: Engine, gate: Gate) -> None:
    one = request(engine, ALIKE[:1])
    scheduler = Scheduler(engine, max_queue_tokens=3 * one.tokens)
    try:
        kept = [scheduler.submit(one)]
        assert gate.arrived.acquire(timeout=60)
        kept += [scheduler.submit(request(engine, [text])) for text in ALIKE[1:3]]
        assert scheduler.queued_tokens == 3 * one.tokens
        with pytest.raises(QueueFull) as full:
            scheduler.submit(request(engine, ALIKE[3:4]))
        assert full.value.retry_after_s > 0
        gate.is_open.set()
        answers(kept)
        assert scheduler.queued_tokens == 0
        # More than the queue holds, but nothing else is there.
        scheduler.submit(request(engine, TEXTS)).result(60)
    finally:
        gate.is_open.set()
        scheduler.close()


def test_a_cancelled_request_leaves_the_queue(engine: Engine, gate: Gate) -> None:
    scheduler = Scheduler(engine, 10**6)
    try:
        first = scheduler.submit(request(engine, TEXTS[:1]))
        assert gate.arrived.acquire(timeout=60)
        second = scheduler.submit(request(engine, TEXTS[1:40]))
        third = scheduler.submit(request(engine, ALIKE[:1]))
        before = scheduler.queued_tokens
        assert second.cancel()
        dropped = before - scheduler.queued_tokens
        assert dropped == request(engine, TEXTS[1:40]).tokens
        assert first.cancel()  # it runs already: its answer goes nowhere
        gate.is_open.set()
        third.result(60)
        with pytest.raises(CancelledError):
            second.result(60)
    finally:
        gate.is_open.set()
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [1, 1]
    assert scheduler.queued_tokens == 0


def test_an_encoder_that_fails_fails_its_requests_alone(engine: Engine, gate: Gate) -> None:
    scheduler = Scheduler(engine, 10**6, max_batch_tokens=64)
    try:
        gate.error = BackendError("out of memory")
        failing = scheduler.submit(request(engine, TEXTS))
        gate.is_open.set()
        with pytest.raises(BackendError, match="out of memory"):
            failing.result(60)
        gate.error = None
        assert scheduler.submit(request(engine, TEXTS[:3])).result(60).predictions
    finally:
        gate.is_open.set()
        scheduler.close()
    assert scheduler.queued_tokens == 0


def test_closing_answers_what_is_there(engine: Engine, gate: Gate) -> None:
    scheduler = Scheduler(engine, 10**6, max_batch_tokens=64)
    futures = [scheduler.submit(request(engine, TEXTS[i : i + 10])) for i in range(0, 60, 10)]
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    gate.is_open.set()
    closing.join(60)
    assert all(future.done() for future in futures)
    answers(futures)
    with pytest.raises(Closed):
        scheduler.submit(request(engine, TEXTS[:1]))


def test_a_request_of_nothing_is_answered(engine: Engine) -> None:
    scheduler = Scheduler(engine, 10)
    try:
        answer = scheduler.submit(request(engine, [])).result(60)
        assert answer.features is not None
        assert len(answer.features) == 0
        assert scheduler.submit(request(engine, [], False)).result(60).features is None
    finally:
        scheduler.close()
