"""The options of `python -m benchmarks parity`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = ("data",)


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_encoder(parser)
    parser.add_argument(
        "--data", type=Path, help="folder of */test.tsv (default: the shipped sentences)"
    )
    parser.add_argument("--texts", type=int, default=1500, help="drawn from --data")
