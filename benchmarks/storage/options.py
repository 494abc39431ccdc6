"""The options of `python -m benchmarks storage`."""

from __future__ import annotations

import argparse

from benchmarks import options

SHOWN = ("quick",)


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_encoder(parser, "the bundle's source model: all its layers are needed")
    parser.add_argument(
        "--texts", type=int, default=100, help="of 50 tokens (default: %(default)s)"
    )
    options.add_quick(parser)
