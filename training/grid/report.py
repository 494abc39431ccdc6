"""The table of a grid: rows are methods, columns are tasks, as in Table 3 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from training.grid.markdown import to_markdown
from training.grid.patterns import patterns

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


@dataclass(frozen=True)
class Table:
    """All rows.

    Attributes:
        matthews, f1: what is shown below the table: tasks, and task -> class.
        tokens: of the text whose cost is counted.
        chosen_layers: method -> how many layers its means pool.
        senses: encoder -> the word-sense probe's result.
    """

    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    matthews: tuple[str, ...]
    f1: Mapping[str, str]
    tokens: int
    chosen_layers: Mapping[str, int]
    senses: Mapping[str, Result]

    def to_json(self) -> dict[str, Any]:
        """Accuracies and the like in percent, a list of seeds each; dev's are for choosing."""
        return {
            "tasks": list(self.tasks),
            "matthews": [task for task in self.matthews if task in self.tasks],
            "f1": {task: label for task, label in self.f1.items() if task in self.tasks},
            "flops_tokens": self.tokens,
            "chosen_layers": dict(self.chosen_layers),
            "rows": [
                {
                    "section": row.section,
                    "name": row.name,
                    "gflops": 2 * row.multiply_adds / 1e9,
                    "average": row.average(self._columns(row)),
                    "dev_average": row.average(self._columns(row), "dev"),
                    "columns": list(self._columns(row)),
                    "accuracy": row.scores("accuracy"),
                    "dev_accuracy": row.scores("accuracy", "dev"),
                    "matthews": {
                        task: values
                        for task, values in row.scores("matthews").items()
                        if task in self.matthews
                    },
                    "f1": {
                        task: row.scores(f"f1/{label}")[task]
                        for task, label in self.f1.items()
                        if task in row.scores(f"f1/{label}")
                    },
                }
                for row in self.rows
            ],
            "patterns": [
                {**asdict(pattern), "expected": pattern.expected, "verdict": pattern.verdict}
                for pattern in patterns(self.rows, self.chosen_layers)
            ],
            "word_senses": dict(self.senses),
        }

    def to_markdown(self) -> str:
        """The table, and what else there is, below each other."""
        return to_markdown(self.to_json())

    def _columns(self, row: Row) -> tuple[str, ...]:
        """The tasks of an average: those that the method is meant to have."""
        return tuple(task for task in self.tasks if task in row.results)
