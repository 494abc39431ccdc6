"""Threads for what takes long beside the encoder: clients take turns, job by job."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

REST = 3.0
"""Times that its last job took, for which a client waits for its next one while others are there:
reading and tokenizing take the processors from the encoder, whoever's turn it is there."""

OTHERS_S = 1.0
"""Seconds for which a client counts as there after its last request."""

Result = TypeVar("Result")


class FairThreads:
    """A pool that takes a job of each client in turn, and is never full of one client's jobs.

    A client may have all threads but one, so that whoever comes waits for no job of another's; work
    that takes long comes in several jobs, one after the other. While others are there, it has a
    part of the time only: what is read of requests is often refused, and costs who sends it little.
    """

    def __init__(self, count: int, name: str) -> None:
        """count: number of threads, two or more."""
        self._seen = _Seen()
        self._resting: dict[str, float] = {}  # clients, and until when
        self._most = count - 1
        self._waiting: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._turns: deque[str] = deque()  # clients that wait, each once
        self._running: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{i}") for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def notice(self, client: str) -> None:
        """A client has sent a request, whether or not there is a job for it. Cheap."""
        self._seen.note(client, time.monotonic())

    def submit(self, client: str, job: Callable[[], Result]) -> Future[Result]:
        """Runs a job when its client's turn comes. Raises RuntimeError once it is closed."""
        future: Future[Result] = Future()
        with self._changed:
            if self._closing:
                raise RuntimeError("these threads are closed")
            jobs = self._waiting.get(client)
            if jobs is None:
                jobs = self._waiting[client] = deque()
                self._turns.append(client)
            jobs.append((future, job))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Waits for all jobs, and ends the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (client := self._whose_turn()) is None:
                    if self._closing and not self._waiting:
                        return
                    self._changed.wait(self._shortest_rest_s())
                future, job = self._take(client)
            started_s = time.monotonic()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except BaseException as error:  # the caller's affair; the thread goes on
                    future.set_exception(error)
            with self._changed:
                self._give_back(client, started_s, time.monotonic())
                self._changed.notify_all()

    def _whose_turn(self) -> str | None:
        """The first client that waits, does not rest and has fewer threads than it may have."""
        now_s = time.monotonic()
        for client in self._turns:
            is_free = self._closing or self._resting.get(client, 0.0) <= now_s
            if is_free and self._running.get(client, 0) < self._most:
                return client
        return None

    def _shortest_rest_s(self) -> float | None:
        """Until a client that waits may go on; None if none of them rests."""
        ends_s = [self._resting[client] for client in self._turns if client in self._resting]
        return max(0.0, min(ends_s) - time.monotonic()) if ends_s else None

    def _take(self, client: str) -> tuple[Future[Any], Callable[[], Any]]:
        """Its next job; its next turn comes after all others'."""
        self._turns.remove(client)
        jobs = self._waiting[client]
        job = jobs.popleft()
        if jobs:
            self._turns.append(client)
        else:
            del self._waiting[client]
        self._running[client] = self._running.get(client, 0) + 1
        return job

    def _give_back(self, client: str, started_s: float, now_s: float) -> None:
        """A job of it has ended, and its rest begins."""
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        for name in [name for name, ends_s in self._resting.items() if ends_s <= now_s]:
            del self._resting[name]
        if self._seen.others_than(client) > now_s - OTHERS_S:
            since_s = self._resting.get(client, now_s)  # it may have had two threads
            self._resting[client] = since_s + REST * (now_s - started_s)


class _Seen:
    """When anybody else than a client was there: the last two clients are enough to know."""

    def __init__(self) -> None:
        self._last = self._before = ("", float("-inf"))

    def note(self, client: str, now_s: float) -> None:
        if client != self._last[0]:
            self._before = self._last
        self._last = client, now_s

    def others_than(self, client: str) -> float:
        """When any other client was seen last."""
        return self._before[1] if client == self._last[0] else self._last[1]
