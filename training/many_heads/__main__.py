"""`bitheads train-heads`: heads for all tasks of a folder, and a report of how good they are."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitheads.engine.commands.command_line import exit_code, say
from bitheads.engine.process.json_lines import print_json
from bitheads.training.config_file import make_config, read_toml
from bitheads.training.errors import ConfigError, TrainingError
from bitheads.training.many_heads.config import ManyConfig, TaskConfig

EPILOG = """\
example:
  bitheads train-heads --data tasks --bundle bundles/all-MiniLM-L6-v2 --output heads
  cp heads/*.safetensors bundles/all-MiniLM-L6-v2/heads/

DIR has a folder per task with train.tsv, and dev.tsv and test.tsv where there are such, or files of
any other format that `bitheads train-head` reads; the folder's name is the task's. Each different
text is encoded once, whatever the number of tasks. What is done stays done: after Ctrl-C, with more
tasks or with more to be measured the same command goes on. report.html in the output is one page
that needs nothing else.

A configuration has settings of `bitheads train-head` for all heads, and for some in a table each:
  epochs = 10
  [tasks.stars]
  kind = "ordinal"
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 1 if any task failed, too."""
    options = _parser().parse_args(argv)
    return exit_code(
        lambda: _run(options),
        "stopped: what was in work is lost, what is done stays done, the same command goes on",
    )


def _run(options: argparse.Namespace) -> None:
    config = _config(options)
    say("starting torch and scikit-learn")
    from bitheads.training.many_heads.run import (
        Places,
        train_many,  # takes seconds: after the configuration's checks
    )

    places = Places(
        options.data,
        options.bundle,
        options.output,
        options.float_bundle,
        options.encoder,
        options.backend,
        options.device,
        options.jobs,
    )
    outcome = train_many(config, places, options.force, say, progress=sys.stderr.isatty())
    say(f"wrote {outcome.report}")
    if options.json:
        print_json({"report": str(outcome.report), "tasks": outcome.rows})
    if outcome.failures:
        raise TrainingError(
            f"{len(outcome.failures)} of {len(outcome.rows)} tasks failed, in whole or in part: "
            f"{', '.join(outcome.failures)}. The lines above and the report say why; the others "
            "are done. Correct them, and run it again."
        )


def _config(options: argparse.Namespace) -> ManyConfig:
    """Raises ConfigError for what is no configuration."""
    usual, settings = TaskConfig(), {}
    if options.config is not None:
        values = read_toml(options.config)
        tables = values.pop("tasks", {})
        try:
            usual = make_config(TaskConfig, values)
            if not isinstance(tables, dict):
                raise ConfigError(f"tasks: got {tables!r}, expected a table.")
            settings = {
                task: make_config(TaskConfig, {**values, **_table(task, own)}, f"tasks.{task}")
                for task, own in tables.items()
            }
        except ConfigError as error:
            raise ConfigError(f"{options.config}: {error}") from error
    said = {
        name: value
        for name in ("epochs", "seed", "dtype", "quotes")
        if (value := getattr(options, name)) is not None
    }
    if not options.reject:
        said["reject"] = False
    if options.learning_rates:
        said["learning_rates"] = tuple(options.learning_rates)
    return ManyConfig(
        tuple(options.tasks),
        tuple(options.exclude_tasks),
        replace(usual, **said),
        {task: replace(own, **said) for task, own in settings.items()},
        tuple(options.background),
        options.learning_curve,
        options.fine_tune,
        options.fine_tune_epochs,
    )


def _table(task: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"tasks.{task}: got {values!r}, expected a table.")
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads train-heads",
        description="Train a head for each task of a folder on a bundle's packed features, on all "
        "cores, and report how good they are. The encoder is not touched.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of tasks, see below")
    add("--bundle", type=Path, required=True, metavar="DIR", help="made by `bitheads build`")
    add(
        "--output",
        type=Path,
        default=Path("heads"),
        metavar="DIR",
        help="gets a head per task, the report, and what is kept to go on from; its `scratch` may "
        "be deleted at any time (default: %(default)s)",
    )
    add("--tasks", nargs="+", default=[], metavar="TASK", help="default: all of the folder")
    add("--exclude-tasks", nargs="+", default=[], metavar="TASK", help="left out of them")
    add("--config", type=Path, metavar="TOML", help="settings, see below; options come first")
    add("--quotes", choices=("csv", "none"), help="how quotes in TSV and CSV are read")
    add(
        "--background",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="texts that are none of the heads' business (default: those that come with bitheads)",
    )
    add(
        "--no-background",
        dest="reject",
        action="store_false",
        help="train no reject outputs: heads answer every text",
    )
    add(
        "--learning-rate",
        dest="learning_rates",
        type=float,
        nargs="+",
        default=[],
        metavar="RATE",
        help="peaks; of several, the best on dev is kept",
    )
    add("--epochs", type=int, help="at most")
    add("--seed", type=int)
    add("--dtype", choices=("float32", "float16"), help="of the weights in the files")
    add(
        "--float-bundle",
        type=Path,
        metavar="DIR",
        help="made by `bitheads build --quantization float16`: heads and linear models on its "
        "features are measured, too",
    )
    add(
        "--learning-curve",
        action="store_true",
        help="train on parts of the examples, too: twice the time",
    )
    add(
        "--fine-tune",
        action="store_true",
        help="fine-tune the encoder for each task, too, to see what sharing it costs: hours on a "
        "CPU; not for spans",
    )
    add("--fine-tune-epochs", type=int, default=3, metavar="N", help="default: %(default)s")
    add("--encoder", help="what the bundle was built from (default: what the bundle says)")
    add("--device", default="auto", help="of fine-tuning: cpu, cuda, ... (default: %(default)s)")
    add("--backend", default="auto", help="encoder backend (default: %(default)s)")
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="processes that train heads, and threads that fine-tune (default: one per core)",
    )
    add("--force", action="store_true", help="replace heads that this command did not write")
    add("--json", action="store_true", help="print the rows as JSON on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
