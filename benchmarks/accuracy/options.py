"""The options of `python -m benchmarks accuracy`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

FEATURES = ("signs", "no_reject", "float16", "last_layer_mean")
"""Of heads for one label; `no_reject` are signs, and heads without a reject output."""
FEATURES_OF_KINDS = ("signs", "uint8", "float16", "linear")
"""Of heads of other kinds; `linear` is no head, but a linear model on the sentence embedding."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    options.add_encoder(parser)
    add("--data", type=Path, required=True, help="a folder per task of one label, of TSVs")
    add(
        "--kinds",
        type=Path,
        help="a folder per task of other kinds, and of texts of no task: train heads of other "
        "kinds instead; with --shipped, hold the shipped heads against texts that are none of "
        "their business",
    )
    add("--tasks", nargs="+", metavar="TASK", help="default: all")
    add(
        "--features",
        nargs="+",
        choices=[*dict.fromkeys([*FEATURES, *FEATURES_OF_KINDS])],
        help="default: all",
    )
    add("--update", action="store_true", help="keep what is stored of other tasks and features")
    add(
        "--shipped",
        action="store_true",
        help="train nothing: only the shipped heads on codes of every precision, int8 too",
    )
    add("--write-heads", type=Path, help="where the sign heads go that are shipped")
