"""Jobs of many clients: each has its turn, none has all threads, and every one is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from itertools import pairwise

import pytest

from bitheads.engine.serve.fair_threads import OTHERS_S, REST, FairThreads


@pytest.fixture
def threads() -> Iterator[FairThreads]:
    made = FairThreads(2, "tests")
    yield made
    made.close()


class Gate:
    """A job that waits."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(60)


def test_what_a_job_returns_and_raises(threads: FairThreads) -> None:
    assert threads.submit("a", lambda: 5).result(60) == 5
    with pytest.raises(ZeroDivisionError):
        threads.submit("a", lambda: 1 // 0).result(60)
    assert threads.submit("a", lambda: 6).result(60) == 6


def test_a_client_never_has_all_threads(threads: FairThreads) -> None:
    """Whoever comes waits for no job of another's, however many those are."""
    first, second = Gate(), Gate()
    slow = [threads.submit("greedy", gate) for gate in (first, second)]
    assert first.entered.wait(60)
    assert threads.submit("modest", lambda: "here").result(60) == "here"
    assert not second.entered.is_set()
    first.opened.set()
    second.opened.set()
    for future in slow:
        future.result(60)


def test_clients_take_turns(threads: FairThreads) -> None:
    """With the other thread taken."""
    gates = {name: Gate() for name in ("greedy", "holding")}
    held = [threads.submit(name, gate) for name, gate in gates.items()]
    assert all(gate.entered.wait(60) for gate in gates.values())
    order: list[str] = []
    waiting: list[Future[None]] = []
    for number in range(5):
        waiting.append(threads.submit("greedy", partial(order.append, f"greedy {number}")))
    for name in ("one", "two"):
        waiting.append(threads.submit(name, partial(order.append, name)))
    gates["holding"].opened.set()
    for future in waiting[-2:]:
        future.result(60)
    assert order[:2] == ["one", "two"]  # the greedy one has a thread already
    gates["greedy"].opened.set()
    for future in (*held, *waiting):
        future.result(60)
    assert order[2:] == [f"greedy {number}" for number in range(5)]


def test_a_job_that_is_cancelled_is_passed_over(threads: FairThreads) -> None:
    gate, done = Gate(), []
    running = threads.submit("a", gate)
    assert gate.entered.wait(60)
    cancelled = threads.submit("a", lambda: done.append("cancelled"))
    after = threads.submit("a", lambda: done.append("after"))
    assert cancelled.cancel()
    gate.opened.set()
    running.result(60)
    after.result(60)
    assert done == ["after"]
    assert not threads._running
    assert not threads._waiting
    assert not threads._turns


def test_closing_does_all_that_waits() -> None:
    threads = FairThreads(3, "tests")
    done: list[int] = []
    futures = [threads.submit(str(i % 7), partial(done.append, i)) for i in range(200)]
    threads.close()
    assert all(future.done() for future in futures)
    assert sorted(done) == list(range(200))
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit("a", lambda: None)


JOB_S = 0.05


@pytest.mark.parametrize("others", [True, False])
def test_a_client_rests_while_others_are_there(threads: FairThreads, others: bool) -> None:
    """Its jobs take the processors from what the others wait for."""
    spans: list[tuple[float, float]] = []

    def job() -> None:
        started_s = time.monotonic()
        if others:
            threads.notice("modest")
        time.sleep(JOB_S)
        spans.append((started_s, time.monotonic()))

    for _ in range(3):  # one after the other, as of a client that waits for its answers
        threads.notice("greedy")
        threads.submit("greedy", job).result(60)
    threads.notice("modest")
    threads.submit("modest", lambda: None).result(JOB_S * REST)  # does not wait for a rest
    gaps = [after[0] - before[1] for before, after in pairwise(spans)]
    if others:
        assert min(gaps) >= REST * JOB_S
    else:
        assert min(gaps) < REST * JOB_S


def test_jobs_at_the_same_time_each_make_a_rest() -> None:
    made = FairThreads(3, "tests")
    made.notice("greedy")
    made.notice("modest")
    started_s = time.monotonic()
    for future in [made.submit("greedy", partial(time.sleep, JOB_S)) for _ in range(2)]:
        future.result(60)
    made.submit("greedy", lambda: None).result(60)
    assert time.monotonic() - started_s >= JOB_S * (1 + 2 * REST)
    made.close()


def test_rests_are_forgotten(threads: FairThreads) -> None:
    for number in range(100):
        threads.notice(str(number))
        threads.submit(str(number), lambda: None).result(60)
    time.sleep(0.1)
    threads.submit("last", lambda: None).result(60)
    assert len(threads._resting) <= 1


def test_closing_waits_for_no_rest() -> None:
    made = FairThreads(2, "tests")
    made.notice("greedy")
    made.notice("modest")
    slow = made.submit("greedy", partial(time.sleep, OTHERS_S))
    after = made.submit("greedy", lambda: None)
    slow.result(60)
    made.notice("modest")
    started_s = time.monotonic()
    made.close()
    assert after.done()
    assert time.monotonic() - started_s < REST * OTHERS_S / 2
