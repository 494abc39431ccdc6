"""The rows of a grid's table, with the results of the cells that are done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bitheads.training.table3.config import FEATURE_METHODS, section_of
from bitheads.training.table3.features.recipe import Recipe
from bitheads.training.table3.plan import GridPlan
from bitheads.training.table3.report.costs import Costs
from bitheads.training.table3.report.row import Row
from bitheads.training.table3.report.table import Table
from bitheads.training.table3.work import GridTask

Read = Callable[[], list[dict[str, Any] | None]]
"""Reads the cells of a task, one for each seed; None for those that are not done."""


@dataclass(frozen=True)
class PlannedRow:
    """A row, done or not.

    Attributes:
        cells: task -> reader of its cells.
        multiply_adds: of all tasks together.
    """

    section: str
    name: str
    cells: dict[str, Read]
    multiply_adds: int


def planned_rows(plan: GridPlan) -> list[PlannedRow]:
    """All rows of the table, in its order."""
    config, costs = plan.work.config, Costs(plan.work)
    rows = []
    if config.single_task:
        cost = costs.own(config.finetune.position_pooling)
        cells = _own_cells(plan, "single_task")
        rows.append(PlannedRow("single task", "fine-tuned end to end", cells, cost))
    if config.student:
        cells = _own_cells(plan, "student")
        rows.append(PlannedRow("single task", "distilled student", cells, costs.student()))
    for method in FEATURE_METHODS:
        if method != "all_tasks_heads":
            rows += _head_rows(plan, method, costs)
    if config.all_tasks:
        cost = costs.shared_as_is(config.multitask.position_pooling)
        cells = _own_cells(plan, "all_tasks")
        rows.append(PlannedRow("all tasks", "used as is", cells, cost))
    return rows + _head_rows(plan, "all_tasks_heads", costs)


def collect(plan: GridPlan) -> Table:
    """The table of all cells that are done."""
    work = plan.work
    rows = []
    for row in planned_rows(plan):
        results = {task: [cell for cell in read() if cell] for task, read in row.cells.items()}
        if any(results.values()):
            rows.append(Row(row.section, row.name, results, row.multiply_adds))
    senses = {}
    for name, (cell, identity) in plan.sense_cells().items():
        if result := plan.results.read(cell, identity):
            senses[name] = result
    return Table(
        tasks=tuple(work.tasks),
        rows=tuple(rows),
        matthews=work.config.matthews,
        f1=dict(work.config.f1),
        tokens=work.config.flops_tokens,
        chosen_layers=dict(plan.chosen_layers),
        senses=senses,
    )


def _own_cells(plan: GridPlan, method: str) -> dict[str, Read]:
    def reader(task: GridTask) -> Read:
        return lambda: [plan.read_own(method, task)]

    return {task.name: reader(task) for task in plan.work.tasks.values()}


def _head_rows(plan: GridPlan, method: str, costs: Costs) -> list[PlannedRow]:
    if not getattr(plan.work.config, method):
        return []
    return [
        PlannedRow(
            section_of(method),
            str(recipe),
            {
                task.name: partial(_read_heads, plan, method, task, recipe)
                for task in plan.tasks(method)
            },
            costs.shared(recipe),
        )
        for recipe in plan.all_recipes(method)
    ]


def _read_heads(
    plan: GridPlan, method: str, task: GridTask, recipe: Recipe
) -> list[dict[str, Any] | None]:
    return [plan.read_head(method, task, recipe, seed) for seed in plan.work.config.seeds]
