"""The options of `python -m benchmarks accuracy`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

FEATURES = ("signs", "float16", "last_layer_mean")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    options.add_encoder(parser)
    add("--data", type=Path, required=True, help="a folder per task, of TSVs")
    add("--tasks", nargs="+", metavar="TASK", help="default: all")
    add("--features", nargs="+", choices=FEATURES, help="default: all")
    add("--update", action="store_true", help="keep what is stored of other tasks and features")
    add(
        "--shipped",
        action="store_true",
        help="train nothing: only the shipped heads on codes of every precision, int8 too",
    )
    add("--write-heads", type=Path, help="where the sign heads go")
