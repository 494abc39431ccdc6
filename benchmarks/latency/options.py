"""The options of `python -m benchmarks latency`."""

from __future__ import annotations

import argparse

from benchmarks import options

SHOWN = ("quick", "calls", "threads")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_threads(parser)
    parser.add_argument(
        "--calls", type=int, default=500, help="of each contender (default: %(default)s)"
    )
    options.add_quick(parser)
