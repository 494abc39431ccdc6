"""The options of `python -m benchmarks heads`, apart, so that --help imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

THREADS = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bundle", type=Path, default=Path("bundles/all-MiniLM-L6-v2"), metavar="DIR")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder a task, as for accuracy: compares the shipped heads on their test files "
        "(default: on the demo's texts)",
    )
    add(
        "--threads",
        type=int,
        default=THREADS,
        help="compared with one, where threads are compared (default: %(default)s)",
    )
    add("--skip-encoder", action="store_true", help="no encoder is exported or timed")
    add("--quick", action="store_true", help="tiny sizes: to see that everything runs")
