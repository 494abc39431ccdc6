"""The paper's Table 3 as measured here: averages, and every task's column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import mean
from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table
from bitheads.training.table3.config import section_of
from bitheads.training.table3.report.markdown import by_section, shown, to_markdown

PAPER = {
    ("single task", "fine-tuned end to end"): 90.5,
    ("single task", "distilled student"): 87.1,
    ("frozen", "last/cls/float"): 75.5,
    ("frozen", "last/mean/float"): 77.7,
    ("frozen", "last/attention/float"): 83.3,
    ("frozen", "mean/attention/float"): 85.5,
    ("frozen", "learned/attention/float"): 85.6,
    ("leave one task out", "last/cls/float"): 85.9,
    ("leave one task out", "last/mean/float"): 86.0,
    ("leave one task out", "last/attention/float"): 86.8,
    ("leave one task out", "mean/attention/float"): 88.4,
    ("leave one task out", "mean/attention/uint8"): 88.4,
    ("leave one task out", "mean/attention/sign"): 88.0,
    ("leave one type out", "mean/attention/float"): 86.6,
    ("all tasks", "used as is"): 89.3,
}
"""Averages of 14 tasks that Section 6 gives: RoBERTa-large, the tasks' whole data, other splits."""


def summary(stored: dict[str, Any]) -> str:
    """Averages, the paper's beside them, and what the encoder for all tasks does when served."""
    result = stored["result"]
    grid = result["table"]
    chosen = {section_of(name): count for name, count in grid["chosen_layers"].items()}

    def is_shown(row: Mapping[str, Any]) -> bool:
        pooled = re.match(r"mean-(\d+)/", row["name"])
        # Others were tried only to choose the number.
        return pooled is None or int(pooled[1]) == chosen.get(row["section"], int(pooled[1]))

    def line(row: Mapping[str, Any]) -> list[str]:
        paper = PAPER.get((row["section"], re.sub(r"^mean-\d+", "mean", row["name"])), "")
        return [shown(row["average"]), str(paper), f"{row['gflops']:.2f}"]

    rows = by_section(["average", "paper", "GFLOPs"], list(filter(is_shown, grid["rows"])), line)
    lines = [rows, "", _data(result)]
    if result["served"] is not None:
        lines += ["", _served(result["served"])]
    return "\n".join([*lines, source(stored)])


def details(stored: dict[str, Any]) -> str:
    """Every task's column."""
    result = stored["result"]
    parts = [_data(result), to_markdown(result["table"])]
    if result["served"] is not None:
        parts.append(_served_tasks(result["served"]))
    return "\n\n".join([*parts, source(stored).strip()])


def _data(result: Mapping[str, Any]) -> str:
    config, encoder = result["config"], result["encoder"]
    seeds = len(config["seeds"])
    more = f", {seeds} where there is a spread" if seeds > 1 else ""
    return (
        f"{encoder}, {len(result['table']['tasks'])} tasks, at most {config['max_train_rows']:,} "
        f"training, {config['max_dev_rows']:,} dev and {config['max_test_rows']:,} test rows each, "
        f"{config['max_length']} tokens of a text, one seed of the heads{more}. "
        f"An encoder for many tasks: {config['multitask']['steps']} steps of "
        f"{config['multitask']['batch_size']} rows a task. *Paper*: RoBERTa-large on the tasks' "
        "whole data, so only differences within a column compare."
    )


def _backends(served: Mapping[str, Any]) -> list[str]:
    first = next(iter(served["tasks"].values()))
    return [name for name, value in first.items() if isinstance(value, dict)]


def _served(served: Mapping[str, Any]) -> str:
    tasks = served["tasks"].values()
    sentences = []
    for backend in _backends(served):
        got = mean(task[backend]["accuracy"] for task in tasks)
        worst = max(abs(task[backend]["accuracy"] - task["evaluated"]) for task in tasks)
        same = mean(task[backend]["same_label"] for task in tasks)
        sentences.append(
            f"{got:.2f} on {backend} ({same:.2f}% the same label; a task by {worst:.2f} at most)"
        )
    evaluated = mean(task["evaluated"] for task in tasks)
    return (
        f"The encoder for all tasks, exported and served with heads on {served['recipe']}: "
        f"{evaluated:.2f}% of the test rows right as evaluated with torch; {', '.join(sentences)}."
    )


def _served_tasks(served: Mapping[str, Any]) -> str:
    backends = _backends(served)
    rows = [
        [
            name,
            str(task["rows"]),
            f"{task['evaluated']:.2f}",
            *(f"{task[backend]['accuracy']:.2f}" for backend in backends),
        ]
        for name, task in served["tasks"].items()
    ]
    lines = table(["task", "rows", "evaluated", *backends], rows)
    return "\n".join([_served(served), "", *lines])


BLOCKS = (
    Block("table3", summary, result="table3_minilm"),
    Block("table3", details, result="table3_minilm", page="docs/table3.md"),
)
