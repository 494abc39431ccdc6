"""The options of `python -m benchmarks spans`."""

from __future__ import annotations

import argparse

from benchmarks import options

SHOWN = ("data", "texts", "quick")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser, "whose tokenizer reads the texts")
    options.add_data(parser)
    parser.add_argument(
        "--texts", type=int, default=2000, help="texts per call (default: %(default)s)"
    )
    options.add_quick(parser)
