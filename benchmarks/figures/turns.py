"""Timing contenders in turn, so that whatever slows the machine down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.figures.rounding import rounded

MIN_SAMPLE_S = 0.02
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes:
        call: does the work once.
        work: how much it is, in any unit that the contenders of a comparison share.
    """

    call: Callable[[], object]
    work: float = 1.0


class Samples(dict[str, list[float]]):
    """Contender -> microseconds for one unit of work, a value per round."""

    def median_us(self, name: str) -> float:
        return statistics.median(self[name])

    def ratio(self, slower: str, faster: str) -> float:
        """Median over the rounds of how many times the time of `faster` that of `slower` is."""
        pairs = zip(self[slower], self[faster], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)

    def summary(self, name: str) -> dict[str, Any]:
        """Median and extremes, rounded, as they are stored."""
        return {
            "us": rounded(self.median_us(name)),
            "us_min": rounded(min(self[name])),
            "us_max": rounded(max(self[name])),
        }


def in_turn(
    contenders: Mapping[str, Contender],
    max_rounds: int,
    budget_s: float,
    min_sample_s: float = MIN_SAMPLE_S,
) -> Samples:
    """Calls each once to warm up, then all in turn, round after round.

    Args:
        max_rounds: taken if they fit into `budget_s`; MIN_ROUNDS are whatever they take.
        min_sample_s: a call that is shorter is made several times per round.
    """
    repeats = {}
    round_s = 0.0
    for name, contender in contenders.items():
        once_s = _seconds(contender.call, 1)
        repeats[name] = max(1, round(min_sample_s / once_s))
        round_s += once_s * repeats[name]
    rounds = min(max_rounds, max(MIN_ROUNDS, int(budget_s / round_s)))
    samples = Samples({name: [] for name in contenders})
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds = _seconds(contender.call, repeats[name]) / repeats[name]
            samples[name].append(1e6 * seconds / contender.work)
    return samples


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started_s = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - started_s
