"""The options of `python -m benchmarks plan`."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--note", default="", help="stored and shown with the result")
