"""The options of `python -m benchmarks host_words`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = ("published",)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--program",
        type=Path,
        default=options.HOST_LIBRARY.parent / "find_words",
        metavar="FILE",
        help="made by make host (default: %(default)s)",
    )
    add(
        "--published",
        type=Path,
        metavar="DIR",
        help="folder of NAME/tokenizer.json of published models, which are compared, too",
    )
    options.add_quick(parser, "one kind of tokenizer: to see that everything runs")
