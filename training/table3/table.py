"""Runs a grid and makes the table of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bitheads.export.encoder import load_encoder
from bitheads.training.device import choose_device
from bitheads.training.errors import TrainingError
from bitheads.training.output_folder import locked
from bitheads.training.table3.config import FEATURE_METHODS, Table3Config, as_json, section_of
from bitheads.training.table3.costs import Costs
from bitheads.training.table3.encoders import (
    encoder_identity,
    own_encoder,
    shared_encoder,
    train_encoder,
)
from bitheads.training.table3.recipe import Recipe
from bitheads.training.table3.report import Table
from bitheads.training.table3.results import Cell, write_json
from bitheads.training.table3.row import Row
from bitheads.training.table3.run import ALL, AS_IS, Grid
from bitheads.training.table3.word_sense_cells import chosen_layers, probe, read_all
from bitheads.training.table3.work import GridTask, open_work

TABLE, MARKDOWN = "table.json", "table.md"
OURS = {TABLE, MARKDOWN, "cells", "encoders", "scratch"}
"""What a folder of this command may hold."""


def make_table(
    config: Table3Config,
    encoder: str,
    data: Path,
    output: Path,
    device: str = "auto",
    force: bool = False,
    report_only: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> Table:
    """Runs all cells that are not done, and writes `table.json` and `table.md`.

    Args:
        data: a folder of tasks, see `training.tasks`, each with test.tsv.
        force: compute cells again that are of another configuration.
        report_only: run nothing.
        say: called with one line at a time.

    Raises InputError for unsound data, ConfigError and TrainingError for what cannot be trained,
    CheckpointError for results of another configuration, and where nothing can be written.
    """
    chosen_device = choose_device(device)
    if output.exists() and (not output.is_dir() or any(map(_is_other, output.iterdir()))):
        raise TrainingError(
            f"--output {output} holds something else than results of this command. Choose another."
        )
    with locked(output):
        work = open_work(config, encoder, data, output, chosen_device, say)
        grid = Grid(work, force)
        check_all(grid)
        seconds: dict[str, float] = {}
        if not report_only:
            seconds = grid.run()
            word_senses(grid)
        table = collect(grid)
        record = {"encoder": work.base, "config": as_json(config), **table.to_json()}
        write_json(output / TABLE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        write_json(output / MARKDOWN, table.to_markdown() + "\n")
        for kind, each in seconds.items():
            say(f"{kind}: {each:.1f} s each")
        say(f"wrote {output / TABLE} and {output / MARKDOWN}")
    return table


def _is_other(path: Path) -> bool:
    """Whether it is none of ours, nor what a run that was killed left of a table."""
    is_left = path.name.startswith((f".{TABLE}.", f".{MARKDOWN}."))
    return path.name not in OURS and not is_left


def check_all(grid: Grid) -> None:
    """Reads every cell and every sense there is, so that nothing is found after hours.

    Raises CheckpointError for cells of another configuration, InputError for unsound words, and
    ConfigError for layers that the encoder has not.
    """
    if grid.work.config.wsd.task is not None:
        read_all(grid.work)
        chosen_layers(grid.work)
    for row_cells in _rows(grid):
        for cells in row_cells[2].values():
            list(cells())


def word_senses(grid: Grid) -> None:
    """The probe's cells: the encoder as it is, and the one trained on all tasks if there is one."""
    work = grid.work
    if work.config.wsd.task is None:
        return
    for name, identity in _sense_cells(grid).items():
        cell = Cell("word_senses", work.config.wsd.task, name)
        if grid.results.read(cell, identity) is not None:
            continue
        work.say(f"word senses: {name}")
        encoder = work.loaded
        if name == "all_tasks":
            encoder = load_encoder(str(train_encoder(work, shared_encoder(work, ALL))))
        result = probe(work, encoder)
        grid.results.write(cell, identity, result, work.made_with())
        shown = ", ".join(f"{form} {100 * f1:.1f}" for form, f1 in result["test"].items())
        work.say(f"word senses, {name}, layer {result['layer']}: F1 {shown}")


def collect(grid: Grid) -> Table:
    """The table of all cells that are done."""
    work, costs = grid.work, Costs(grid.work)
    rows = []
    for section, name, cells, multiply_adds in _rows_with_costs(grid, costs):
        results = {task: [cell for cell in read() if cell] for task, read in cells.items()}
        if any(results.values()):
            rows.append(Row(section, name, results, multiply_adds))
    senses = {}
    if (task := work.config.wsd.task) is not None:
        for name, identity in _sense_cells(grid).items():
            if result := grid.results.read(Cell("word_senses", task, name), identity):
                senses[name] = result
    return Table(
        tasks=tuple(work.tasks),
        rows=tuple(rows),
        matthews=work.config.matthews,
        f1=dict(work.config.f1),
        tokens=work.config.flops_tokens,
        chosen_layers=dict(grid.chosen_layers),
        senses=senses,
    )


Read = Callable[[], list[dict[str, Any] | None]]
Cells = dict[str, Read]


def _rows(grid: Grid) -> list[tuple[str, str, Cells]]:
    return [row[:3] for row in _rows_with_costs(grid, Costs(grid.work))]


def _rows_with_costs(grid: Grid, costs: Costs) -> list[tuple[str, str, Cells, int]]:
    """(section, name, task -> reader of its cells, multiply-adds) of each row, done or not."""
    work, config = grid.work, grid.work.config
    rows: list[tuple[str, str, Cells, int]] = []

    def own(method: str, extra: dict[str, Any]) -> Cells:
        def reader(task: GridTask) -> Read:
            identity = {**grid.own_identity(task, own_encoder(work, task.name)), **extra}
            return lambda: [grid.results.read(Cell(method, task.name, AS_IS), identity)]

        return {task.name: reader(task) for task in work.tasks.values()}

    if config.single_task:
        cost = costs.own(config.finetune.position_pooling)
        rows.append(("single task", "fine-tuned end to end", own("single_task", {}), cost))
    if config.student:
        cells = own("student", {"distil": as_json(config.distil)})
        rows.append(("single task", "distilled student", cells, costs.student()))

    def heads(method: str) -> None:
        for recipe in grid.all_recipes(method) if getattr(config, method) else ():
            cells: Cells = {
                task.name: partial(_read_heads, grid, method, task, recipe)
                for task in grid.method_tasks(method)
            }
            rows.append((section_of(method), str(recipe), cells, costs.shared(recipe)))

    for method in FEATURE_METHODS:
        if method != "all_tasks_heads":
            heads(method)
    if config.all_tasks:
        plan = shared_encoder(work, ALL)

        def as_is(task: GridTask) -> Read:
            identity = grid.own_identity(task, plan)
            return lambda: [grid.results.read(Cell("all_tasks", task.name, AS_IS), identity)]

        cells = {task.name: as_is(task) for task in work.tasks.values()}
        cost = costs.shared_as_is(config.multitask.position_pooling)
        rows.append(("all tasks", "used as is", cells, cost))
    heads("all_tasks_heads")
    return rows


def _read_heads(
    grid: Grid, method: str, task: GridTask, recipe: Recipe
) -> list[dict[str, Any] | None]:
    return [grid.read_head(method, task, recipe, seed) for seed in grid.work.config.seeds]


def _sense_cells(grid: Grid) -> dict[str, dict[str, Any]]:
    """Name -> identity."""
    work = grid.work
    settings = {
        "wsd": as_json(work.config.wsd),
        "quotes": (work.config.quotes or {}).get(str(work.config.wsd.task)),
        "rows": [work.config.max_dev_rows, work.config.max_test_rows],
        "precision": work.config.precision.value,
        "seed": work.config.seeds[0],
    }
    named = {"frozen": {**settings, "encoder": encoder_identity(work, None)}}
    if work.config.all_tasks:
        encoder = encoder_identity(work, shared_encoder(work, ALL))
        named["all_tasks"] = {**settings, "encoder": encoder}
    return named
