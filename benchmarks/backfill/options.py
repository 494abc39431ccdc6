"""The options of `python -m benchmarks backfill`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = ("quick", "data", "texts")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser, "whose tokenizer is used")
    options.add_data(parser)
    add = parser.add_argument
    add("--texts", type=int, default=200_000, help="of each store (default: %(default)s)")
    add(
        "--encoded-texts",
        type=int,
        default=60,
        help="that the encoders read (default: %(default)s)",
    )
    add(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where the stores are made, 3 GB (default: the system's for temporary files)",
    )
    options.add_quick(parser)
