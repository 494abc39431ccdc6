"""Processes do not share the first processor: threads are bound to none, or one to each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

PROGRAM = """
import sys
from bitheads import Engine
bundle, backend, threads = sys.argv[1:]
threads = None if threads == "all" else int(threads)
with Engine.load(bundle, backend, threads, "fp32") as engine:
    texts = ["a text of some words that " * (1 + i % 8) for i in range(64)]
    engine.encode(texts, max_batch_tokens=64)
    print("encoding", flush=True)
    while True:
        engine.encode(texts, max_batch_tokens=64)
"""
SAMPLES = 50


@contextmanager
def encoding(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that encodes without end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "encoding\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def threads_of(process: subprocess.Popen[str]) -> Iterator[frozenset[int]]:
    """The processors that each thread may run on.

    Not the one that it was on last: some sandboxes' /proc says 0 for every thread.
    """
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            yield frozenset(os.sched_getaffinity(int(task.name)))


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one processor is all that this process may use"
)
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("threads", "processes"), [("1", 2), ("all", 1)])
def test_threads_do_not_crowd_on_one_processor(
    backend: str, threads: str, processes: int, tiny_bundle: Path
) -> None:
    own = frozenset(os.sched_getaffinity(0))
    arguments = str(tiny_bundle), backend, threads
    allowed: set[frozenset[int]] = set()
    with ExitStack() as stack:
        running = [stack.enter_context(encoding(*arguments)) for _ in range(processes)]
        for _ in range(SAMPLES):
            for process in running:
                allowed.update(threads_of(process))
            time.sleep(0.01)
    if threads == "1" or backend == "onnxruntime":
        assert allowed == {own}
    else:  # OpenVINO's threads for all processors may be bound, to one each
        assert len(allowed - {own}) != 1
