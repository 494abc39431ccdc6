"""Real servers on real sockets: in a thread of the tests, or in a process of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from head_kinds import TEXTS, heads_of_every_kind
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.heads.head_file import FORMS, write_head
from bitheads.engine.serve import server as serving
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.settings import Settings

ADMIN_KEY = "an-admin-key-of-the-tests"
TASKS = {"topic": "single", "mood": "single", "same": "pair"}
START_S = 180.0


@pytest.fixture(scope="session")
def head_bundle(
    build_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`tiny_bundle` with embeddings and three heads of random weights; not to be written to."""
    import shutil

    made = build_bundle("bert", embedding="mean")
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("served") / "tiny"))
    with Engine.load(folder, backend="onnxruntime") as engine:
        spec = engine.spec
    for seed, (task, form) in enumerate(TASKS.items()):
        write_head(
            random_head(spec, task, form=form, seed=seed), folder / "heads" / f"{task}.safetensors"
        )
    return folder


@pytest.fixture(scope="session")
def kinds_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bundle` with heads of every kind, see `head_kinds`; not to be written to."""
    import shutil

    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("served") / "kinds"))
    with Engine.load(folder, backend="onnxruntime") as engine:
        for head in heads_of_every_kind(engine, TEXTS, FORMS):
            write_head(head, folder / "heads" / f"{head.task}.safetensors")
    return folder


@pytest.fixture(scope="session")
def offline(head_bundle: Path) -> Iterator[Engine]:
    """What the server's answers are compared with."""
    with Engine.load(head_bundle, backend="onnxruntime") as engine:
        yield engine


@contextmanager
def running(bundle: Path, **options: Any) -> Iterator[tuple[httpx.Client, Server]]:
    """A server in a thread, and a client of it."""
    backend = options.pop("backend", "onnxruntime")
    options = {"admin_keys": (ADMIN_KEY,), "log": "none", **options}
    settings = Settings(bundle=bundle, port=0, **options)
    engine = Engine.load(bundle, backend, threads=2)
    listening = serving.listen(settings)
    server = Server(engine, settings)
    uvicorn = serving.make(server, settings)
    thread = threading.Thread(target=uvicorn.run, args=([listening],))
    thread.start()
    try:
        deadline_s = time.monotonic() + START_S
        while not uvicorn.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        with httpx.Client(base_url=serving.url(listening, settings), timeout=60) as client:
            yield client, server
    finally:
        uvicorn.should_exit = True
        thread.join()
        server.close()


def wait_for(is_so: Callable[[], bool], most_s: float = 60) -> None:
    """What a server does a moment after its answer."""
    deadline_s = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


Running = Callable[..., Any]


@pytest.fixture(scope="module")
def client(head_bundle: Path) -> Iterator[httpx.Client]:
    """Of a server that has all three heads; tests leave it as they found it."""
    with running(head_bundle) as (client, _):
        yield client


class ServerProcess:
    """`bitheads serve` on a free port.

    Attributes:
        url: where it listens.
        lines: what it has printed.
    """

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bitheads", "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        self.lines: list[str] = []
        self._found = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._found.wait(START_S), self.lines
        assert self.url, self.lines

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: int) -> int:
        """Sends a signal; returns the exit code."""
        self._process.send_signal(number)
        code = self._process.wait(START_S)
        self._reader.join()
        return code

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            found = re.search(r"http://[\w.]+:\d+", line)
            if found and not self.url:
                self.url = found[0]
                self._found.set()
        self._found.set()
