"""Processes that work off jobs: what each gives, and what becomes of those that fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import pytest

from bitheads.engine.errors import InputError
from bitheads.training.many_heads.workers import Failure, Job, run_jobs


def work(what: str) -> Any:
    """What the other process does."""
    if what == "ours":
        raise InputError("row 3: got nothing, expected a text.")
    if what == "theirs":
        raise ZeroDivisionError("by zero")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "threads":
        return os.environ["OMP_NUM_THREADS"]
    return what.upper(), os.getpid()


def run(*names: str, processes: int = 2) -> dict[str, Any]:
    found: dict[str, Any] = {}
    jobs = [Job(name, work, (name.rstrip("0123456789"),)) for name in names]
    run_jobs(jobs, processes, lambda job, result: found.update({job.name: result}))
    assert not multiprocessing.active_children()
    return found


def test_all_jobs_are_done_by_as_many_processes() -> None:
    found = run(*(f"a{i}" for i in range(8)))
    assert {result[0] for result in found.values()} == {"A"}
    assert len(found) == 8
    processes = {result[1] for result in found.values()}
    assert len(processes) <= 2
    assert os.getpid() not in processes


def test_a_job_that_fails_leaves_the_others_alone() -> None:
    found = run("a1", "ours", "killed1", "theirs", "killed2", "a2", "killed3", "a3")
    assert found["ours"] == Failure("row 3: got nothing, expected a text.")
    assert found["theirs"].message == "ZeroDivisionError: by zero"
    assert "in work" in found["theirs"].details  # where
    for name in ("killed1", "killed2", "killed3"):
        assert "exit code -9" in found[name].message
    assert all(found[name][0] == "A" for name in ("a1", "a2", "a3"))


def test_each_has_one_thread_and_the_caller_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert run("threads") == {"threads": "1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_an_error_of_the_caller_ends_the_processes() -> None:
    def stop(job: Job, result: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([Job(f"a{i}", work, ("a",)) for i in range(4)], 2, stop)
    assert not multiprocessing.active_children()
