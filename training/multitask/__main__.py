"""`bitheads train-encoder`: one encoder, trained on many tasks at once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bitheads.engine.commands.command_line import exit_code, say
from bitheads.engine.process.json_lines import print_json
from bitheads.training.config_file import read_config
from bitheads.training.multitask.config import MultitaskConfig

EPILOG = """\
example:
  bitheads train-encoder --config training/configs/multitask_minilm.toml \\
      --data DIR --output encoders/multitask-minilm
  bitheads build --encoder encoders/multitask-minilm

DIR has a folder per task with train.tsv and dev.tsv, and index.tsv with the columns name and type.
After a crash, a kill or Ctrl-C the same command with --resume goes on from the last checkpoint.
docs/training.md has every key of the configuration.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    arguments = vars(options)
    as_json = arguments.pop("json")
    config = read_config(arguments.pop("config"), MultitaskConfig)
    say("starting torch and transformers")
    from bitheads.training.multitask.train import (
        train_multitask,  # takes seconds: after the config's checks
    )

    record = train_multitask(config, **arguments, say=say)
    if as_json:
        print_json({"output": str(options.output), **record})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads train-encoder",
        description="Train one encoder on many tasks, with a head for each (Section 3.3.2 of the "
        "paper). The output is an encoder for `bitheads build`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="TOML", help="what is trained, and how")
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of tasks")
    add("--output", type=Path, required=True, metavar="DIR", help="the encoder's folder")
    add(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from the last checkpoint; start if none is")
    add("--force", action="store_true", help="start over if the output holds a run")
    add("--json", action="store_true", help="print what was trained, and dev accuracies, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
