"""Calls from one process to another over a pipe, one at a time, and what they raise."""

from __future__ import annotations

import logging
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prometheus_client import Metric

from bitheads.engine.errors import BitheadsError

logger = logging.getLogger("bitheads.serve")


class Calls:
    """To an object of another process. From any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._calling = threading.Lock()

    def call(self, method: str, *arguments: Any) -> Any:
        """Raises what the method raises; EOFError or OSError if the other process has gone."""
        with self._calling:
            self._pipe.send((method, arguments))
            result, error = self._pipe.recv()
        if error is not None:
            raise error
        return result


def answer_calls(pipe: Connection, of: object) -> None:
    """Until the other process has gone."""
    while True:
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        result: object = None
        failed: Exception | None = None
        try:
            result = getattr(of, method)(*arguments)
        except BitheadsError as error:
            failed = error
        except Exception as error:  # a defect, which must not end this thread
            logger.exception("%s failed", method)
            failed = RuntimeError(f"{method}: {error!r}")
        try:
            pipe.send((result, failed))
        except OSError:
            return


class RemotePart:
    """See engine.serve.whole.Part."""

    def __init__(self, pipe: Connection) -> None:
        self._call = Calls(pipe).call

    def read_head(self, name: str, path: Path) -> None:
        self._call("read_head", name, path)

    def use_head(self, name: str) -> None:
        self._call("use_head", name)

    def forget_read(self, name: str) -> None:
        self._call("forget_read", name)

    def check_head(self, name: str) -> None:
        self._call("check_head", name)

    def remove_head(self, name: str) -> None:
        self._call("remove_head", name)

    def metrics(self) -> list[Metric]:
        collected: list[Metric] = self._call("metrics")
        return collected

    def statistics(self) -> dict[str, Any]:
        shown: dict[str, Any] = self._call("statistics")
        return shown


class RemoteWhole:
    """See engine.serve.whole.Whole."""

    def __init__(self, pipe: Connection) -> None:
        self._call = Calls(pipe).call

    def put_head(self, name: str, content: bytes) -> None:
        self._call("put_head", name, content)

    def delete_head(self, name: str) -> None:
        self._call("delete_head", name)

    def show_metrics(self) -> bytes:
        shown: bytes = self._call("show_metrics")
        return shown

    def show_statistics(self) -> dict[str, Any]:
        shown: dict[str, Any] = self._call("show_statistics")
        return shown
