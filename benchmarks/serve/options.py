"""The options of `python -m benchmarks serve`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = ("quick", "data", "threads", "seconds")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_data(parser)
    options.add_threads(parser)
    add = parser.add_argument
    add("--seconds", type=float, default=10.0, help="of each load (default: %(default)s)")
    add(
        "--host-library",
        type=Path,
        default=options.HOST_LIBRARY,
        metavar="FILE",
        help="the C++ host, which is measured beside it if it is there (default: %(default)s)",
    )
    options.add_quick(parser)
