"""The options of `python -m benchmarks tasks`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

PLOT = Path("docs/tasks.png")

SHOWN = ("quick", "plot")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plot",
        type=Path,
        default=PLOT,
        metavar="FILE",
        help="where the picture goes (default: %(default)s, which docs/benchmarks.md shows)",
    )
    options.add_quick(parser)
