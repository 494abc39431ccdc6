"""The options of `python -m benchmarks heads`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = ("quick", "data", "threads", "skip_encoder")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder per task, as for accuracy: compares the shipped heads on their test files "
        "(default: on the demo's texts)",
    )
    options.add_threads(parser, "compared with one, where threads are compared")
    add("--skip-encoder", action="store_true", help="no encoder is exported or timed")
    options.add_quick(parser)
