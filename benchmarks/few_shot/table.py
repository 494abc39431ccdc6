"""Heads by number of examples: means over tasks, and each task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.accuracy.variants import EMBEDDING, SIGNS
from benchmarks.few_shot.options import SIZES
from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table

NAMES = {
    SIGNS: "head on signs",
    "pooled_signs": "linear, mean of the signs",
    EMBEDDING: "linear, sentence embedding",
}


def means(stored: dict[str, Any]) -> str:
    """A row per size: the mean over the tasks that were measured at it."""
    tasks = stored["result"]["tasks"]
    rows = []
    for size in SIZES:
        cells = [task[size] for task in tasks.values() if size in task]
        if not cells:
            continue
        by_name = {name: [np.mean(cell[name]) for cell in cells] for name in NAMES}
        worst = min(
            ours - theirs for ours, theirs in zip(by_name[SIGNS], by_name[EMBEDDING], strict=True)
        )
        figures = [f"{np.mean(found):.1f}" for found in by_name.values()]
        rows.append([size, str(len(cells)), *figures, f"{worst:+.1f}"])
    head = ["examples per class", "tasks", *NAMES.values(), "largest loss to the embedding"]
    return "\n".join([*table(head, rows), source(stored)])


def by_task(stored: dict[str, Any]) -> str:
    """A row per task: head on signs / linear model on the sentence embedding, at each size."""
    tasks = stored["result"]["tasks"]
    sizes = [size for size in SIZES if any(size in task for task in tasks.values())]
    rows = [[name, task["form"], *_cells(task, sizes)] for name, task in tasks.items()]
    return "\n".join([*table(["task", "texts", *sizes], rows, left=2), source(stored)])


def _cells(task: dict[str, Any], sizes: Iterable[str]) -> list[str]:
    found = []
    for size in sizes:
        cell = task.get(size)
        pair = [] if cell is None else [f"{np.mean(cell[name]):.1f}" for name in (SIGNS, EMBEDDING)]
        found.append(" / ".join(pair) or "-")
    return found


BLOCKS = (Block("few_shot", means), Block("few_shot_tasks", by_task))
