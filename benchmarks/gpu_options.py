"""The options of `python -m benchmarks gpu`, apart, so that --help imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

SCRATCH = Path("build/gpu-bundles")
PARTS = ("plan", "speed", "accuracy", "share", "heads", "kernels")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bundle", type=Path, default=Path("bundles/all-MiniLM-L6-v2"), metavar="DIR")
    add(
        "--encoder",
        default="all-MiniLM-L6-v2",
        help="the bundle's source model, for torch (default: %(default)s)",
    )
    add(
        "--roberta-large",
        action="store_true",
        help="also an encoder of that shape with seeded weights; its bundle is made once, in "
        f"{SCRATCH}, which takes minutes and 2 GB",
    )
    add("--quick", action="store_true", help="few repeats: to see that everything runs")
    add("--only", nargs="+", choices=PARTS, help="these parts alone (default: all)")
    add("--rebuild-plan", action="store_true", help="build the plan again, to time it")
