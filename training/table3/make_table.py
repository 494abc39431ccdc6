"""Runs a grid and makes the table of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from bitheads.training.device import choose_device
from bitheads.training.errors import TrainingError
from bitheads.training.output_folder import locked
from bitheads.training.table3.cells.word_sense_probe import chosen_layers, read_all
from bitheads.training.table3.config import Table3Config, as_json
from bitheads.training.table3.encoders import FOLDER as ENCODERS
from bitheads.training.table3.plan import CELLS, GridPlan
from bitheads.training.table3.report.rows import collect, planned_rows
from bitheads.training.table3.report.table import Table
from bitheads.training.table3.results import write_json
from bitheads.training.table3.run import SCRATCH, GridRun
from bitheads.training.table3.work import open_work

TABLE, MARKDOWN = "table.json", "table.md"
OURS = {TABLE, MARKDOWN, CELLS, ENCODERS, SCRATCH}
"""Names that a folder of this command may hold."""


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
        data: a folder of tasks, see `training.data.tasks`, each with test.tsv.
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
        plan = GridPlan(work, replace=force)
        run = GridRun(plan, force)
        check_all(plan)
        seconds = {} if report_only else run.run()
        table = collect(plan)
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


def check_all(plan: GridPlan) -> None:
    """Reads every cell and every sense there is, so that nothing is found after hours.

    Raises CheckpointError for cells of another configuration, InputError for unsound words, and
    ConfigError for layers that the encoder has not.
    """
    if plan.work.config.wsd.task is not None:
        read_all(plan.work)
        chosen_layers(plan.work)
    for row in planned_rows(plan):
        for read in row.cells.values():
            read()
