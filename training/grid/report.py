"""The table of a grid: rows are methods, columns are tasks, as in Table 3 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from training.grid.patterns import patterns
from training.grid.patterns import to_markdown as patterns_table

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

    def scores(self, metric: str) -> dict[str, list[float]]:
        """Task -> a test metric in percent of each seed, for tasks that have it."""
        return {
            task: [100 * result["test"][metric] for result in results]
            for task, results in self.results.items()
            if results and metric in results[0]["test"]
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
        """Accuracies and the like in percent, a list of seeds each."""
        return {
            "tasks": list(self.tasks),
            "flops_tokens": self.tokens,
            "chosen_layers": dict(self.chosen_layers),
            "rows": [
                {
                    "section": row.section,
                    "name": row.name,
                    "gflops": 2 * row.multiply_adds / 1e9,
                    "average": row.average(self._columns(row)),
                    "dev_average": row.average(self._columns(row), "dev"),
                    "accuracy": row.scores("accuracy"),
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
                {**asdict(pattern), "verdict": pattern.verdict}
                for pattern in patterns(self.rows, self.chosen_layers)
            ],
            "word_senses": dict(self.senses),
        }

    def to_markdown(self) -> str:
        """The table, and what else there is, below each other."""
        parts = [self._accuracies()]
        if others := self._others():
            parts.append(others)
        if found := patterns(self.rows, self.chosen_layers):
            parts.append(patterns_table(found))
        if self.senses:
            parts.append(self._senses())
        return "\n\n".join(parts)

    def _columns(self, row: Row) -> tuple[str, ...]:
        """The tasks of an average: those that the method is meant to have."""
        return tuple(task for task in self.tasks if task in row.results)

    def _accuracies(self) -> str:
        seeds = max((len(r) for row in self.rows for r in row.results.values()), default=0)
        spread = ", mean and standard deviation over seeds of the heads" if seeds > 1 else ""
        note = (
            f"Test accuracy in percent{spread}; GFLOPs of all {len(self.tasks)} tasks on a text "
            f"of {self.tokens} tokens, two a multiply-add."
        )
        header = ["method", *self.tasks, "average", "GFLOPs"]

        def line(row: Row) -> list[str]:
            scores = row.scores("accuracy")
            average = row.average(self._columns(row))
            return [
                row.name,
                *(_shown(scores.get(task)) for task in self.tasks),
                _shown(average, 2) + ("" if len(self._columns(row)) == len(self.tasks) else " *"),
                f"{2 * row.multiply_adds / 1e9:.2f}",
            ]

        text = _table(header, self.rows, line)
        if any(len(self._columns(row)) < len(self.tasks) for row in self.rows):
            text += "\n\n\\* of the tasks shown."
        return f"{note}\n\n{text}"

    def _others(self) -> str:
        columns: list[tuple[str, str, str]] = [
            (f"{task} Matthews", task, "matthews") for task in self.matthews if task in self.tasks
        ]
        columns += [
            (f"{task} F1 of {label}", task, f"f1/{label}")
            for task, label in self.f1.items()
            if task in self.tasks
        ]
        if not columns:
            return ""
        return _table(
            ["method", *(name for name, _, _ in columns)],
            self.rows,
            lambda row: [
                row.name,
                *(_shown(row.scores(metric).get(task)) for _, task, metric in columns),
            ],
        )

    def _senses(self) -> str:
        lines = [
            "Word senses, F1 in percent of nearest centroids; the layer is the best on dev.",
            "",
            "| encoder | layer | most frequent sense | float | sign | centred sign |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, result in self.senses.items():
            test = result["test"]
            values = [result["most_frequent"]["test"], test["float"], test["sign"], test["centred"]]
            shown = " | ".join(f"{100 * value:.1f}" for value in values)
            lines.append(f"| {name.replace('_', ' ')} | {result['layer']} | {shown} |")
        return "\n".join(lines)


def _table(header: list[str], rows: Sequence[Row], line: Callable[[Row], list[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines.append(f"| **{section}** |{' |' * (len(header) - 1)}")
        lines.append(f"| {' | '.join(line(row))} |")
    return "\n".join(lines)


def _shown(values: Sequence[float] | None, digits: int = 1) -> str:
    if not values:
        return ""
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.{digits}f}"
