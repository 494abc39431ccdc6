"""The options of `python -m benchmarks host_parity`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="folder of */test.tsv")
    add(
        "--texts",
        type=int,
        default=5000,
        help="single texts, and as many pairs (default: %(default)s)",
    )
    add(
        "--library",
        type=Path,
        default=options.HOST_LIBRARY,
        metavar="FILE",
        help="made by make host (default: %(default)s)",
    )
