"""Threads for what takes long beside the encoder: clients take turns, job by job."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class FairThreads:
    """A pool that takes a job of each client in turn, and is never full of one client's jobs.

    A client may have all threads but one, so that whoever comes waits for no job of another's; work
    that takes long comes in several jobs, one after the other.
    """

    def __init__(self, count: int, name: str) -> None:
        """count: of threads, two or more."""
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
                    self._changed.wait()
                future, job = self._take(client)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except BaseException as error:  # the caller's affair; the thread goes on
                    future.set_exception(error)
            with self._changed:
                self._running[client] -= 1
                if not self._running[client]:
                    del self._running[client]
                self._changed.notify_all()

    def _whose_turn(self) -> str | None:
        """The first client that waits and has not all threads that it may have."""
        for client in self._turns:
            if self._running.get(client, 0) < self._most:
                return client
        return None

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
