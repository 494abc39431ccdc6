"""`python -m benchmarks`: one name per routine; each stores its result and prints it as JSON."""

from __future__ import annotations

import argparse
import sys

from benchmarks.routines import ROUTINES
from bitheads.engine.commands.command_line import exit_code

TABLES = "tables"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options), "interrupted: no result was stored")


def _run(options: argparse.Namespace) -> None:
    if options.routine == TABLES:
        from benchmarks.pages import tables

        tables.update(options.check)
        return
    # Only the one that is asked for: each imports what it measures, some of which takes seconds.
    next(routine for routine in ROUTINES if routine.name == options.routine).run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="routine", required=True, metavar="ROUTINE")
    for routine in ROUTINES:
        routine.add_options(names.add_parser(routine.name, help=routine.help))
    tables = names.add_parser(
        TABLES, help="write the tables of README.md and docs from stored results"
    )
    tables.add_argument("--check", action="store_true", help="only compare")
    return parser


if __name__ == "__main__":
    sys.exit(main())
