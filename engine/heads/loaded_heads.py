"""The heads of an engine by task name: they come and go while others are asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bitheads.engine.errors import HeadError, UnknownTaskError
from bitheads.engine.heads.head import Head
from bitheads.engine.kinds import NO_DECISION, SINGLE_LABEL, Decision


@dataclass(frozen=True)
class TaskInfo:
    """What a loaded head answers.

    Attributes:
        labels: its classes; of a `regression` none.
        form: "single" if it reads one text, "pair" if it reads two.
        metrics: name -> value, as measured when it was trained.
        nbytes: bytes its weights take in memory.
        kind, decision: see FoldedHead.
    """

    labels: tuple[str, ...]
    form: str
    metrics: Mapping[str, float]
    nbytes: int
    kind: str = SINGLE_LABEL
    decision: Decision = NO_DECISION


class LoadedHeads:
    """Thread-safe: whoever asks sees the heads that were there at that moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: Mapping[str, Head] = MappingProxyType({})

    def add(self, head: Head, replace: bool = False) -> None:
        """Raises HeadError if its name is taken (without `replace`)."""
        with self._lock:
            if head.task in self._heads and not replace:
                raise HeadError(
                    f"task {head.task!r} is loaded already. Remove it first, or pass replace=True."
                )
            self._heads = MappingProxyType({**self._heads, head.task: head})

    def remove(self, name: str) -> None:
        """Raises UnknownTaskError if there is none of that name."""
        with self._lock:
            self.choose([name])
            self._heads = MappingProxyType({k: v for k, v in self._heads.items() if k != name})

    def clear(self) -> None:
        """Forgets all of them."""
        self._heads = MappingProxyType({})

    def choose(self, tasks: Sequence[str] | None) -> list[Head]:
        """The heads of these tasks, None for all of them; a snapshot.

        Raises UnknownTaskError for a task no head answers.
        """
        heads = self._heads
        if tasks is None:
            return list(heads.values())
        if isinstance(tasks, str):
            tasks = [tasks]
        unknown = [name for name in tasks if name not in heads]
        if unknown:
            raise UnknownTaskError(
                f"task {unknown[0]!r}: no such head is loaded, expected one of "
                f"{sorted(heads) or 'none (no head is loaded)'}. Add it with "
                "engine.add_head(path), or train it with `bitheads train-head`."
            )
        return [heads[name] for name in dict.fromkeys(tasks)]

    def infos(self) -> Mapping[str, TaskInfo]:
        """What each of them answers, by task name; a snapshot."""
        return {
            name: TaskInfo(
                head.labels,
                head.form,
                MappingProxyType(dict(head.metrics)),
                head.nbytes,
                head.kind,
                head.decision,
            )
            for name, head in self._heads.items()
        }
