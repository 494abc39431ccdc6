"""The options of `python -m benchmarks memory`."""

from __future__ import annotations

import argparse

from benchmarks import options

SHOWN = ("quick", "data", "texts", "threads")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_data(parser)
    options.add_threads(parser)
    parser.add_argument(
        "--texts",
        type=int,
        default=20_000,
        help="that are compared with 1,000 (default: %(default)s)",
    )
    options.add_quick(parser)
