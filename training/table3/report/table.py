"""The table of a grid: rows are methods, columns are tasks, as in Table 3 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bitheads.training.table3.report.markdown import to_markdown
from bitheads.training.table3.report.patterns import patterns
from bitheads.training.table3.report.row import Result, Row


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
        """Accuracies and the like in percent, a list with one per seed; dev's are for choosing."""
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
        """The table, and below it what else there is."""
        return to_markdown(self.to_json())

    def _columns(self, row: Row) -> tuple[str, ...]:
        """The tasks of an average: those that the method is meant to have."""
        return tuple(task for task in self.tasks if task in row.results)
