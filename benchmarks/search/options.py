"""The options of `python -m benchmarks search`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = ("data", "texts", "queries", "rows", "quick")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser, "that gives embeddings")
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of */train.tsv to draw short texts from (default: the shipped sentences, "
        "joined)",
    )
    add("--texts", type=int, default=20_000, help="that are searched (default: %(default)s)")
    add(
        "--queries",
        type=int,
        default=1000,
        help="texts beside those, which are looked for (default: %(default)s)",
    )
    add(
        "--rows",
        type=int,
        default=1_000_000,
        help="of the indexes that are timed (default: %(default)s)",
    )
    add(
        "--store",
        type=Path,
        default=Path("build/search"),
        metavar="DIR",
        help="where embeddings and codes are kept: another run reads them (default: %(default)s)",
    )
    options.add_quick(parser)
