"""The options of `python -m benchmarks model_types`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

SHOWN = ("published",)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--types",
        nargs="+",
        default=[],
        metavar="TYPE",
        help="only these, in place of what is stored of them (default: all)",
    )
    parser.add_argument(
        "--published",
        type=Path,
        metavar="DIR",
        help="folder of NAME/tokenizer.json of published models, which are compared, too",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where a run was stopped (build/model_types.json)",
    )
    options.add_quick(parser, "one type and one tokenizer: to see that everything runs")
