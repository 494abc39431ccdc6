"""The library in programs that fork, have threads, share the machine, or are done with it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from host_build import run

MAX_SAMPLES = 3000
"""Looks at where threads run; the first that finds two processes apart is enough."""


@contextmanager
def busy(*command: str | Path) -> Iterator[int]:
    """A process that encodes; yields its id once it has begun."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "busy\n"
            yield process.pid
        finally:
            process.kill()


def threads_of(process: int) -> list[Path]:
    return list(Path(f"/proc/{process}/task").iterdir())


def of_threads(process: int, file: str) -> list[str]:
    """What /proc says of each of its threads; some end while one looks."""
    found = []
    for thread in threads_of(process):
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append((thread / file).read_text())
    return found


def may_run_on(process: int) -> set[str]:
    """Of each of its threads."""
    return {allowed_cores(status) for status in of_threads(process, "status")}


def allowed_cores(status: str) -> str:
    (line,) = [line for line in status.splitlines() if line.startswith("Cpus_allowed_list:")]
    return line.split()[1]


def runs_on(process: int) -> set[int]:
    """Processors of the threads that are running."""
    fields = [text.rpartition(")")[2].split() for text in of_threads(process, "stat")]
    return {int(field[36]) for field in fields if field[0] == "R"}


def test_two_processes_do_not_share_one_processor(in_a_program: Path, host_bundle: Path) -> None:
    # Of the first thread: others are an encoder's, maybe, which have a part of the cores each.
    own = allowed_cores(Path("/proc/self/status").read_text())
    with ExitStack() as stack:
        for threads in ("1", "1", "0"):
            started = stack.enter_context(busy(in_a_program, "busy", host_bundle, threads))
            assert may_run_on(started) == {own}
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor: two processes have to share it")
    with (
        busy(in_a_program, "busy", host_bundle, "1") as one,
        busy(in_a_program, "busy", host_bundle, "1") as other,
    ):
        for _ in range(MAX_SAMPLES):
            if len(runs_on(one) | runs_on(other)) > 1:
                return
            time.sleep(0.005)
        pytest.fail("both were only ever seen on one and the same processor")


def test_a_forked_child_is_told_so(in_a_program: Path, host_bundle: Path) -> None:
    """It was a hang. An engine that the child loads itself works."""
    *errors, spec_id, own, ended = run(in_a_program, "fork", host_bundle).splitlines()
    assert len(errors) == 8
    for error in errors:
        assert error.startswith("status 8: engine: loaded in process ")
        assert error.endswith("Load the engine in the child.")
    assert len(spec_id) == 16
    assert (own, ended) == ("its own engine works", "child ended with 0")


def test_first_calls_of_several_threads(in_a_program: Path, host_bundle: Path) -> None:
    assert run(in_a_program, "threads", host_bundle).split() == ["same"] * 12


def test_memory_comes_back(in_a_program: Path, demo_bundle: Path) -> None:
    turns = [
        tuple(map(int, line.split()))
        for line in run(in_a_program, "memory", demo_bundle).splitlines()
    ]
    assert len(turns) == 3
    for used_kb, left_kb in turns:
        assert left_kb < used_kb / 2
