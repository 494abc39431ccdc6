"""The options of `python -m benchmarks overload`."""

from __future__ import annotations

import argparse

from benchmarks import options

SHOWN = ("quick", "data", "threads", "minutes")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_data(parser)
    options.add_threads(parser)
    parser.add_argument("--minutes", type=float, default=30.0, help="(default: %(default)s)")
    options.add_quick(parser)
