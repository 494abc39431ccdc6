"""The options of `python -m benchmarks long_texts`."""

from __future__ import annotations

import argparse

from benchmarks import options

SHOWN = ("quick", "threads", "rounds")


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser, "whose tokenizer splits the texts")
    options.add_threads(parser)
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="in which each way has one turn; of its times the least counts (default: %(default)s)",
    )
    options.add_quick(parser)
