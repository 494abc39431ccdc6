"""A server in a process of its own, and how much memory it takes."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import urlsplit

from benchmarks import ROOT
from benchmarks.processes import memory
from benchmarks.processes.child import LAST_LINES, ChildError

START_S = 300.0
SAMPLE_S = 0.05
HTTP, GRPC = r"http://[\w.]+:\d+", r"gRPC on [\w.]+:(\d+)"


class ServerProcess:
    """`bitheads serve` on a free port of this machine.

    Attributes:
        host, port: where it listens.
        grpc_port: where for gRPC, if it does.
        memory: (seconds since its start, bytes), some samples per second.
    """

    def __init__(
        self,
        bundle: Path,
        threads: int,
        *,
        cached: bool = False,
        grpc: bool = False,
        processes: int = 1,
    ) -> None:
        """Returns when it listens. Raises ChildError if it does not.

        Args:
            cached: keep codes, as by default. Without, texts that a load asks again and again are
                encoded again and again.
            grpc: listen for gRPC, too.
            processes: that share the threads.
        """
        options = [] if cached else ["--cache-bytes", "0"]
        options += ["--grpc-port", "0"] if grpc else []
        options += ["--workers", str(processes)]
        self._is_there = GRPC if grpc else HTTP  # what is printed last
        command = [sys.executable, "-m", "bitheads", "serve", "--bundle", str(bundle.resolve())]
        command += ["--port", "0", "--threads", str(threads), "--log", "text", *options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        self._started_s = time.monotonic()
        self._lines: list[str] = []
        self._found = threading.Event()
        self._ended = threading.Event()
        self.host, self.port, self.grpc_port = "", 0, 0
        self.memory: list[tuple[float, int]] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self._process.stdout,)),
            threading.Thread(target=self._sample),
        ]
        for thread in self._threads:
            thread.start()
        if not self._found.wait(START_S) or not self.port:
            self.close()
            end = "\n".join(self._lines[-LAST_LINES:])
            raise ChildError(f"the server did not start:\n{end}")

    def now_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started_s

    def peak_bytes(self, since_s: float = 0.0, until_s: float = float("inf")) -> int:
        """Most memory of the samples between two times."""
        samples = list(self.memory)
        return max((size for at_s, size in samples if since_s <= at_s <= until_s), default=0)

    def end(self) -> int:
        """Sends SIGTERM; returns the exit code."""
        self._process.terminate()
        return self._process.wait(60)

    def close(self) -> None:
        """Kills it, if it still runs."""
        self._ended.set()
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            self._read_lines(stdout)
        self._found.set()

    def _read_lines(self, stdout: IO[str]) -> None:
        for line in stdout:
            if self._found.is_set():
                continue
            self._lines.append(line.rstrip())
            if found := re.search(HTTP, line):
                parts = urlsplit(found[0])
                self.host, self.port = str(parts.hostname), int(parts.port or 0)
            if found := re.search(GRPC, line):
                self.grpc_port = int(found[1])
            if re.search(self._is_there, line):
                self._found.set()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            try:
                num_bytes = memory.now_bytes(self._process.pid)
            except OSError:  # it has ended
                return
            self.memory.append((self.now_s(), num_bytes))
