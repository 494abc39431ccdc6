"""The options of `python -m benchmarks gpu`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SCRATCH = Path("build/gpu-bundles")
PARTS = ("plan", "speed", "accuracy", "share", "heads", "kernels")

SHOWN = ("quick", "roberta_large", "only")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_encoder(parser, "the bundle's source model, for torch")
    add = parser.add_argument
    add(
        "--roberta-large",
        action="store_true",
        help="also an encoder of that shape with seeded weights; its bundle is made once, in "
        f"{SCRATCH}, which takes minutes and 2 GB",
    )
    options.add_quick(parser, "few repeats: to see that everything runs")
    add("--only", nargs="+", choices=PARTS, help="these parts alone (default: all)")
    add("--rebuild-plan", action="store_true", help="build the plan again, to time it")
