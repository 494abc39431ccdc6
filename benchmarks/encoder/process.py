"""The parent's side of a contender's process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.processes.child import LAST_LINES, ChildError


class Process:
    """See benchmarks.encoder.worker. Started at once, ready when `ready` returns.

    Attributes:
        skipped: why it does not take part, None if it does.
        gives: see benchmarks.encoder.worker.Runner.
        versions: of the packages it has loaded.
    """

    def __init__(
        self, name: str, request: Mapping[str, Any], log: Path, python: Path | None = None
    ) -> None:
        """log: where its standard error goes. python: None for this process's own."""
        self.name = name
        self.skipped: str | None = None
        self.gives: str | None = None
        self.versions: dict[str, str] = {}
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(python or sys.executable), "-m", "benchmarks.encoder.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        self._send(request)

    def ready(self) -> None:
        """Waits until it is built or has given up."""
        answer = self._receive()
        self.skipped, self.gives = answer.get("skipped"), answer.get("gives")
        self.versions = answer.get("versions", {})

    def encode(self) -> None:
        """All texts once. Raises ChildError if it fails."""
        self._ask({"do": "encode"})

    def costs(self) -> dict[str, Any]:
        """Its peak memory so far and the share of padding."""
        return self._ask({"do": "costs"})

    def stages(self) -> dict[str, Any]:
        """Seconds of each of its stages; empty if it does not know."""
        return self._ask({"do": "stages"})

    def signs(self, what: str, folder: Path) -> NDArray[np.uint8]:
        """See Runner.signs."""
        file = folder / "signs.npy"
        self._ask({"do": "signs", "what": what, "file": str(file)})
        found: NDArray[np.uint8] = np.load(file)
        return found

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self._send(command)
        return self._receive()

    def _send(self, line: Mapping[str, Any]) -> None:
        try:
            _pipe(self._process.stdin).write(json.dumps(line) + "\n")
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            raise self._error() from None

    def _receive(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise self._error()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _error(self) -> ChildError:
        end = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return ChildError(f"{self.name}: its process ended.\n" + "\n".join(end))


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
