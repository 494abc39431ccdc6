"""Cost of a text as a function of the number of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Cost = Callable[[int], float]
Curves = dict[str, Cost]


@dataclass(frozen=True)
class Line:
    """A cost that is paid once, and one that each task adds."""

    once: float
    a_task: float

    def __call__(self, tasks: int) -> float:
        return self.once + self.a_task * tasks


@dataclass(frozen=True)
class HeadTimes:
    """All heads' time per text between the numbers of tasks where it was measured.

    Straight lines are drawn in between; past the last the line goes on. No heads take no time.

    Attributes:
        totals: number of tasks -> time of all their heads.
    """

    totals: Mapping[int, float]

    def __call__(self, tasks: int) -> float:
        points = sorted({0: 0.0, **self.totals}.items())
        right = next((i for i, (count, _) in enumerate(points) if count >= tasks), len(points) - 1)
        (low, low_cost), (high, high_cost) = points[max(0, right - 1)], points[max(1, right)]
        return low_cost + (high_cost - low_cost) * (tasks - low) / (high - low)


@dataclass(frozen=True)
class Shared:
    """One encoder, and the heads on it."""

    once: float
    heads: HeadTimes

    def __call__(self, tasks: int) -> float:
        return self.once + self.heads(tasks)


def cheaper_from(cost: Cost, other: Cost, most_tasks: int) -> int | None:
    """The least number of tasks from which on `cost` stays below `other`, None if it does not."""
    first = None
    for tasks in range(most_tasks, 0, -1):
        if cost(tasks) >= other(tasks):
            break
        first = tasks
    return first
