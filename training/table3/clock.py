"""Progress of a grid: how many pieces of work are left, and how long they take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from bitheads.training.progress import duration


class Clock:
    """Counts pieces of work by kind, as a head and an encoder take different times.

    Args:
        total: kind -> pieces, those that were done before among them.
    """

    def __init__(self, total: Counter[str], say: Callable[[str], None]) -> None:
        self._left = Counter(total)
        self._say = say
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._within_s: list[float] = []
        self._timed: Counter[str] = Counter()

    def skip(self, kind: str, count: int = 1) -> None:
        """Counts pieces that need not be done."""
        self._left[kind] -= count

    @contextmanager
    def timing(self, kind: str) -> Iterator[Callable[[], float]]:
        """Times a piece of work; gives a function that tells its seconds so far.

        A piece within another counts for its own kind alone.
        """
        started_s = monotonic()
        self._within_s.append(0.0)
        yield lambda: monotonic() - started_s - self._within_s[-1]
        total_s = monotonic() - started_s
        self._seconds[kind] += total_s - self._within_s.pop()
        if self._within_s:
            self._within_s[-1] += total_s
        self._timed[kind] += 1
        self._left[kind] -= 1

    def say(self, message: str) -> None:
        """Says the message, and what is left."""
        self._say(f"{message}; {self.left()}")

    def left(self) -> str:
        """What is left, such as "3 encoders and 120 heads to go, 35 min 10 s left"."""
        kinds = [kind for kind, count in sorted(self._left.items()) if count > 0]
        if not kinds:
            return "nothing left"
        timed = [kind for kind in kinds if self._timed[kind]]
        each_s = self.seconds_each()
        seconds = sum(self._left[kind] * each_s[kind] for kind in timed)
        shown = ", ".join(f"{self._left[kind]} {kind}" for kind in kinds)
        unknown = [kind for kind in kinds if kind not in timed]
        if not timed:
            return f"{shown} to go"
        more = f" and the {', '.join(unknown)}" if unknown else ""
        return f"{shown} to go, {duration(seconds)}{more} left"

    def seconds_each(self) -> dict[str, float]:
        """Kind -> mean seconds of those done now."""
        return {kind: self._seconds[kind] / count for kind, count in self._timed.items()}
