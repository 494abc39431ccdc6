"""Processes that work off jobs, one at a time each: one that fails, or is killed, fails one job.

Processes are spawned: a fork would copy threads of OpenVINO's that are not there afterwards. They
write nothing, so that one that is stopped in its work leaves nothing.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from bitheads.engine.errors import BitheadsError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries of arithmetic read when they are loaded: one thread per process."""

END_S = 10.0
"""Seconds that a process without work has to end."""


@dataclass(frozen=True)
class Job:
    """A call: `run(*arguments)` in another process, so all of it must be picklable.

    Attributes:
        name: for people.
    """

    name: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Failure:
    """What a job came to that gave nothing.

    Attributes:
        message: for people.
        details: a traceback, "" for errors that say all there is to say.
    """

    message: str
    details: str = ""


Done = Callable[[Job, Any], None]
"""Called with a job and what it gave, or its Failure, in the caller's process."""


def run_jobs(jobs: Sequence[Job], processes: int, done: Done) -> None:
    """Works off the jobs, in their order; whatever ends this, no process is left."""
    left = list(reversed(jobs))
    workers: list[_Worker] = []
    try:
        with _one_thread_each():
            workers += [_Worker() for _ in range(min(processes, len(jobs)))]
        for worker in workers:
            worker.start(left.pop())
        while busy := {worker.pipe: worker for worker in workers if worker.job is not None}:
            for pipe in wait([*busy]):
                assert isinstance(pipe, Connection), "it waits for nothing else"
                worker = busy[pipe]
                job, result = worker.result()
                if not worker.is_alive:
                    workers.remove(worker)
                    worker.end()
                    if left:
                        with _one_thread_each():
                            worker = _Worker()
                        workers.append(worker)
                if left:
                    worker.start(left.pop())
                done(job, result)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, and the job that it is at."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.pipe, its_end = context.Pipe()
        self._process = context.Process(target=_work, args=(its_end,), daemon=True)
        self._process.start()
        its_end.close()
        self.job: Job | None = None
        self.is_alive = True

    def start(self, job: Job) -> None:
        self.job = job
        self.pipe.send(job)

    def result(self) -> tuple[Job, Any]:
        """Of the job that is done, or whose process is gone."""
        job = self.job
        assert job is not None, "it has one"
        self.job = None
        try:
            return job, self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.is_alive = False
            self._process.join()
            return job, Failure(
                f"its process ended with the exit code {self._process.exitcode}, as if it had been "
                "killed, such as for want of memory. Run fewer at a time (--jobs), or look at the "
                "task's texts."
            )

    def end(self) -> None:
        """At once if it is at work; else as processes end, so that libraries clean up."""
        self.pipe.close()
        if self.job is None:
            self._process.join(END_S)
        self._process.kill()
        self._process.join()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """What is started meanwhile has one thread for arithmetic."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection) -> None:
    """What a process does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who ends all of them
    while True:
        try:
            job: Job = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            result = job.run(*job.arguments)
        except BitheadsError as error:
            result = Failure(str(error))
        except Exception as error:
            result = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        pipe.send(result)
