"""A row of the table: a method's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        results: task -> the result of each seed that is done.
        multiply_adds: of all tasks together.
    """

    section: str
    name: str
    results: Mapping[str, Sequence[Result]]
    multiply_adds: int

    def scores(self, metric: str, part: str = "test") -> dict[str, list[float]]:
        """Task -> a metric in percent of each seed, for tasks that have it."""
        return {
            task: [100 * result[part][metric] for result in results]
            for task, results in self.results.items()
            if results and metric in results[0][part]
        }

    def average(self, tasks: Sequence[str], part: str = "test") -> list[float] | None:
        """Mean accuracy in percent over the tasks, of each seed; None if some are not done."""
        columns = [self.results.get(task) or [] for task in tasks]
        seeds = min(map(len, columns))
        if seeds == 0:
            return None
        return [
            mean(100 * column[seed][part]["accuracy"] for column in columns)
            for seed in range(seeds)
        ]
