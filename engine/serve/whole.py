"""A server as its clients see it, in one process or in several: what all of them have in common.

Every process has an engine and answers requests by itself. Heads come and go in all of them or in
none, and what is counted is the sum.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from prometheus_client import Metric

from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError
from bitheads.engine.heads.head import Head
from bitheads.engine.serve import metrics, statistics
from bitheads.engine.serve.metrics import Metrics
from bitheads.engine.serve.scheduler import Scheduler
from bitheads.engine.serve.uploads import HeadFolder, read_head, scratch_file
from bitheads.engine.serve.work import Work

Result = TypeVar("Result")


class Whole(Protocol):
    """From any thread, but for the event loop's: each may wait for other processes."""

    def put_head(self, name: str, content: bytes) -> None:
        """Loads a head file; requests that came before end with the head they began with.

        Where heads are kept, it is on disk once this returns. After an error every process has the
        heads that it had.

        Raises HeadError if it is not a sound head file or is of another task, SpecMismatchError if
        it was trained on another feature spec, KeepError if it cannot be kept.
        """

    def delete_head(self, name: str) -> None:
        """Forgets a head, and its file if it was uploaded, for good.

        Raises UnknownTaskError, and KeepError if the file cannot be removed: the head then stays.
        """

    def show_metrics(self) -> bytes:
        """In Prometheus' text format."""

    def show_statistics(self) -> dict[str, Any]:
        """As Triton's statistics have it."""


class Part(Protocol):
    """One process of a server. From one thread at a time."""

    def read_head(self, name: str, path: Path) -> None:
        """Reads it for `use_head`. Raises as `Whole.put_head`."""

    def use_head(self, name: str) -> None:
        """Requests that come from now on are answered with what was read."""

    def forget_read(self, name: str) -> None:
        """What was read is not used."""

    def check_head(self, name: str) -> None:
        """Raises UnknownTaskError if there is none."""

    def remove_head(self, name: str) -> None: ...

    def metrics(self) -> list[Metric]: ...

    def statistics(self) -> dict[str, Any]: ...


class OwnPart:
    """Of this process."""

    def __init__(self, engine: Engine, scheduler: Scheduler, work: Work, counted: Metrics) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._work = work
        self._metrics = counted
        self._read: dict[str, Head] = {}

    def read_head(self, name: str, path: Path) -> None:
        self._read[name] = read_head(self._engine, name, path)

    def use_head(self, name: str) -> None:
        self._engine.use_head(self._read.pop(name), replace=True)

    def forget_read(self, name: str) -> None:
        self._read.pop(name, None)

    def check_head(self, name: str) -> None:
        self._engine.choose_heads([name])

    def remove_head(self, name: str) -> None:
        self._engine.remove_head(name)
        self._work.forget_task(name)

    def metrics(self) -> list[Metric]:
        return self._metrics.collect(self._scheduler, len(self._engine.tasks))

    def statistics(self) -> dict[str, Any]:
        return self._metrics.statistics.show()


class AllParts:
    """A `Whole` of the parts that there are."""

    def __init__(self, parts: Sequence[Part], folder: HeadFolder) -> None:
        self._parts = parts
        self._folder = folder
        self._changing = threading.Lock()

    def put_head(self, name: str, content: bytes) -> None:
        with self._changing:
            try:
                with scratch_file(name, content) as path:
                    self._of_each(lambda part: part.read_head(name, path))
                self._folder.keep(name, content)
            except BitheadsError:
                self._of_each(lambda part: part.forget_read(name))
                raise
            self._of_each(lambda part: part.use_head(name))

    def delete_head(self, name: str) -> None:
        with self._changing:
            self._parts[0].check_head(name)
            self._folder.remove(name)
            self._of_each(lambda part: part.remove_head(name))

    def show_metrics(self) -> bytes:
        return metrics.show(self._of_each(lambda part: part.metrics()))

    def show_statistics(self) -> dict[str, Any]:
        return statistics.summed(self._of_each(lambda part: part.statistics()))

    def _of_each(self, run: Callable[[Part], Result]) -> list[Result]:
        """All of them at once, to their ends; raises the first one's error."""
        if len(self._parts) == 1:
            return [run(self._parts[0])]
        with ThreadPoolExecutor(len(self._parts)) as pool:
            running = [pool.submit(run, part) for part in self._parts]
        return [done.result() for done in running]
