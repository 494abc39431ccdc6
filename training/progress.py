"""Progress of long work as lines with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

SAY_EVERY_S = 10.0
"""Seconds between two lines."""


class Progress:
    """Says how far the work is at the first step, at the last, and every ten seconds.

    Args:
        total: steps of the work.
        done: how many were done before, by a process that was stopped.
    """

    def __init__(self, total: int, done: int, say: Callable[[str], None]) -> None:
        self._total, self._before, self._say = total, done, say
        self._started_s = time.monotonic()
        self._said_s = -SAY_EVERY_S

    def step(self, number: int, message: str) -> None:
        """After step `number`, counted from 1."""
        now_s = time.monotonic()
        if number < self._total and now_s - self._said_s < SAY_EVERY_S:
            return
        self._said_s = now_s
        step_s = (now_s - self._started_s) / (number - self._before)
        left = duration(step_s * (self._total - number))
        self._say(f"step {number}/{self._total}: {message}, {step_s:.2f} s per step, {left} left")


def duration(seconds: float) -> str:
    """Such as "2 h 05 min", "3 min 20 s" or "12 s"."""
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest_s:02d} s" if minutes else f"{rest_s} s"
