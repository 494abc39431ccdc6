"""Time of the processor, which what others do on the machine changes least."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any


def least_us(
    calls: Mapping[Any, tuple[Callable[[], object], int]], rounds: int
) -> dict[Any, float]:
    """The least microseconds of a processor per unit of work, of all rounds, of calls in turn."""
    least = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, (call, work) in calls.items():
            started_s = time.process_time()
            call()
            us = 1e6 * (time.process_time() - started_s) / work
            least[name] = min(least[name], us)
    return least
