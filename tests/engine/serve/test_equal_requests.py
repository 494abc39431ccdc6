"""Equal texts of several requests are encoded once, and those that came before not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import running
from head_kinds import heads_of_every_kind
from random_heads import random_head, random_span_head, random_two_texts_head
from test_scheduler import ALIKE, TEXTS, Gate, answers, request

from bitheads import Engine
from bitheads.engine.errors import BackendError
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.serve import scheduler as scheduling
from bitheads.engine.serve.codes_cache import ENTRY_BYTES
from bitheads.engine.serve.request import Answer, Request
from bitheads.engine.serve.scheduler import BatchReport, Scheduler
from bitheads.engine.texts.apart import take_apart

CACHE_BYTES = 1 << 20


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request: pytest.FixtureRequest, head_bundle: Path) -> Iterator[Engine]:
    with Engine.load(head_bundle, request.param, threads=2, precision="fp32") as engine:
        yield engine


@pytest.fixture
def gate(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(engine, monkeypatch)


def assert_answers(engine: Engine, answer: Answer, texts: Sequence[Any]) -> None:
    """To the bit those of the engine, in fp32."""
    features = engine.encode(texts)
    assert answer.features is not None
    np.testing.assert_array_equal(answer.features.codes, features.codes)
    np.testing.assert_array_equal(answer.features.offsets, features.offsets)
    for task, prediction in engine.predict_features(features).items():
        np.testing.assert_array_equal(answer.predictions[task].logits, prediction.logits)
        np.testing.assert_array_equal(answer.predictions[task].answered, prediction.answered)


def test_equal_texts_that_wait_are_encoded_once(engine: Engine, gate: Gate) -> None:
    reports: list[BatchReport] = []
    scheduler = Scheduler(engine, 10**6, report=reports.append)
    calls = [[ALIKE[1]], [ALIKE[1], ALIKE[2], ALIKE[1]], [ALIKE[2]], [ALIKE[3]], [ALIKE[0]]]
    try:
        first = scheduler.submit(request(engine, ALIKE[:1]))
        assert gate.arrived.acquire(timeout=60)
        futures = [scheduler.submit(request(engine, call)) for call in calls]
        waits = request(engine, ALIKE[:1]).tokens * 7  # all but the one that goes with the first
        assert scheduler.queued_tokens == waits
        gate.is_open.set()
        found = answers([first, *futures])
    finally:
        gate.is_open.set()
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [1, 3]
    assert [(report.rows, report.joined) for report in reports] == [(1, 1), (3, 3)]
    assert scheduler.queued_tokens == 0
    for call, answer in zip([ALIKE[:1], *calls], found, strict=True):
        assert_answers(engine, answer, call)
        assert answer.queue_s >= 0


def test_who_has_little_does_not_wait_for_an_equal_text_of_who_has_much(
    engine: Engine, gate: Gate
) -> None:
    scheduler = Scheduler(engine, 10**6, max_batch_tokens=64)
    try:
        first = scheduler.submit(request(engine, ALIKE[:1]))
        assert gate.arrived.acquire(timeout=60)
        much = request(engine, [*TEXTS, ALIKE[5]])
        much.client = "much"
        long = scheduler.submit(much)
        little = request(engine, ALIKE[5:6])
        little.client = "little"
        short = scheduler.submit(little)
        ended: list[str] = []
        short.add_done_callback(lambda _: ended.append("short"))
        long.add_done_callback(lambda _: ended.append("long"))
        gate.is_open.set()
        assert_answers(engine, short.result(60), ALIKE[5:6])
        assert_answers(engine, long.result(60), [*TEXTS, ALIKE[5]])
        first.result(60)
    finally:
        gate.is_open.set()
        scheduler.close()
    assert ended == ["short", "long"]
    assert sum(rows for _, rows in gate.batches) == 1 + len(TEXTS) + 1
    assert scheduler.queued_tokens == 0


def test_cancelling_one_of_equal_texts_leaves_the_others(engine: Engine, gate: Gate) -> None:
    scheduler = Scheduler(engine, 10**6, cache_bytes=CACHE_BYTES)
    try:
        first = scheduler.submit(request(engine, ALIKE[:1]))
        assert gate.arrived.acquire(timeout=60)
        waits, cancelled, also = [
            scheduler.submit(request(engine, [ALIKE[1], text])) for text in ALIKE[2:5]
        ]
        rides, gone = [scheduler.submit(request(engine, ALIKE[:1])) for _ in range(2)]
        for future in (cancelled, gone, first):
            assert future.cancel()
        gate.is_open.set()
        for future, call in ((waits, [1, 2]), (also, [1, 4]), (rides, [0])):
            assert_answers(engine, future.result(60), [ALIKE[i] for i in call])
        for future in (cancelled, gone, first):
            with pytest.raises(CancelledError):
                future.result(60)
        assert_answers(engine, scheduler.submit(request(engine, ALIKE[:2])).result(60), ALIKE[:2])
    finally:
        gate.is_open.set()
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [1, 3]
    assert scheduler.queued_tokens == 0


def test_a_batch_that_fails_fails_all_that_went_with_it(engine: Engine, gate: Gate) -> None:
    scheduler = Scheduler(engine, 10**6, cache_bytes=CACHE_BYTES)
    try:
        gate.error = BackendError("out of memory")
        failing = [scheduler.submit(request(engine, ALIKE[:1]))]
        assert gate.arrived.acquire(timeout=60)
        failing.append(scheduler.submit(request(engine, ALIKE[:2])))
        gate.is_open.set()
        for future in failing:
            with pytest.raises(BackendError, match="out of memory"):
                future.result(60)
        gate.error = None
        answer = scheduler.submit(request(engine, ALIKE[:2])).result(60)
        assert_answers(engine, answer, ALIKE[:2])
        assert scheduler.queued_tokens == 0
    finally:
        gate.is_open.set()
        scheduler.close()


@pytest.mark.parametrize("inline_tokens", [scheduling.INLINE_TOKENS, 0], ids=["at once", "aside"])
def test_what_was_encoded_is_not_encoded_again(
    engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch, inline_tokens: int
) -> None:
    monkeypatch.setattr(scheduling, "INLINE_TOKENS", inline_tokens)
    gate.is_open.set()
    reports: list[BatchReport] = []
    scheduler = Scheduler(engine, 10**6, report=reports.append, cache_bytes=CACHE_BYTES)
    try:
        for texts in (ALIKE[:3], ALIKE[:1], [ALIKE[2], ALIKE[7], ALIKE[0]], ALIKE[7:8]):
            found = scheduler.submit(request(engine, texts)).result(60)
            assert_answers(engine, found, texts)
        # A pair is no text that has the same tokens, and codes are not asked for every time.
        texts = [(ALIKE[0], ALIKE[1]), ALIKE[0]]
        assert_answers(engine, scheduler.submit(request(engine, texts)).result(60), texts)
        answer = scheduler.submit(request(engine, texts, features=False)).result(60)
        assert answer.features is None
        assert answer.queue_s == 0
    finally:
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [3, 1, 1]
    assert sum(report.rows for report in reports) == 5
    assert sum(report.cached for report in reports) == 1 + 2 + 1 + 1 + 2
    assert len(scheduler.cache) == 5
    assert scheduler.queued_tokens == 0


def test_a_head_that_came_later_answers_from_the_cache(
    engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of every kind, one of words among them, and one that was replaced meanwhile."""
    gate.is_open.set()
    texts = ALIKE[:4]
    scheduler = Scheduler(engine, 10**6, cache_bytes=CACHE_BYTES)

    def ask(heads: Sequence[Any], words: bool = False) -> Answer:
        asked = Request(engine.tokenizer(texts, words=words), heads, True)
        return scheduler.submit(asked).result(60)

    try:
        ask(engine.choose_heads(["topic"]))
        later: list[FoldedHead] = [
            random_head(engine.spec, "topic", seed=9),
            random_span_head(engine.spec, "names"),
        ]
        later += [
            replace(head, task=f"later-{head.task}")
            for head in heads_of_every_kind(engine, texts, ("single",))
        ]
        heads = [engine.encoder.load_head(head) for head in later]
        found = ask(heads, words=True)
        features = engine.encode(texts, words=True)
        for task, expected in engine.encoder.predict(features, heads).items():
            np.testing.assert_array_equal(found.predictions[task].logits, expected.logits)
            assert found.predictions[task].spans == expected.spans
        alike = engine.encoder.load_head(random_two_texts_head(engine.spec, "alike"))
        placed, to_encode = take_apart([(texts[0], texts[3])], [alike])
        asked = Request(engine.tokenizer(to_encode), [alike], False, apart=placed)
        answer = scheduler.submit(asked).result(60)
        vectors = engine.encoder.text_vectors(engine.encode([texts[0], texts[3]]), [alike])
        (wanted,) = engine.encoder.pair_outputs(vectors, np.array([[0, 1]]), [alike])
        np.testing.assert_array_equal(answer.predictions["alike"].logits, wanted)
    finally:
        scheduler.close()
    assert [rows for _, rows in gate.batches] == [len(texts)]


def test_many_threads_with_few_texts(engine: Engine) -> None:
    """Answers of all are the engine's, and nothing is left, whoever goes with whom, and while the
    cache holds only some of the texts."""
    reports: list[BatchReport] = []
    some = [*ALIKE[:6], *TEXTS[:24]]
    expected = {text: engine.encode([text]) for text in some}
    largest = ENTRY_BYTES + max(features.nbytes for features in expected.values())
    scheduler = Scheduler(
        engine, 10**6, max_batch_tokens=64, report=reports.append, cache_bytes=12 * largest
    )
    wrong: list[Any] = []

    def ask(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(40):
            texts = [some[i] for i in draw.integers(0, len(some), draw.integers(1, 5))]
            future = scheduler.submit(request(engine, texts))
            if draw.random() < 0.2 and future.cancel():
                continue
            answer = future.result(60)
            assert answer.features is not None
            for text, features in zip(texts, answer.features, strict=True):
                if not np.array_equal(features.codes, expected[text].codes):
                    wrong.append(text)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        scheduler.close()
    assert wrong == []
    assert sum(report.cached for report in reports) > 0
    assert sum(report.rows for report in reports) > len(some) > len(scheduler.cache)
    assert scheduler.queued_tokens == 0
    assert not scheduler._open
    assert not scheduler._equal._waiting
    assert not scheduler._equal._running
    assert 0 < scheduler.cache.nbytes <= scheduler.cache.max_bytes


@pytest.mark.parametrize("cache_bytes", [0, CACHE_BYTES])
def test_served(head_bundle: Path, cache_bytes: int) -> None:
    with running(head_bundle, cache_bytes=cache_bytes) as (client, _):
        body = {"inputs": [ALIKE[0], ALIKE[1], [ALIKE[0], ALIKE[1]]]}
        first, second = [client.post("/v1/predict", json=body).json() for _ in range(2)]
        assert first == second
        metrics = dict(
            line.rsplit(" ", 1)
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("bitheads_")
        )
    cached = 3 if cache_bytes else 0
    assert float(metrics["bitheads_cached_texts_total"]) == cached
    assert float(metrics["bitheads_texts_total"]) == 6 - cached
    assert float(metrics["bitheads_cache_texts"]) == cached
    assert (float(metrics["bitheads_cache_bytes"]) > 0) == bool(cached)
