"""The options of `python -m benchmarks few_shot`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

TASKS = [
    "mnli",
    "qnli",
    "rte",
    "mrpc",
    "qqp",
    "sst2",
    "amazon5",
    "amazon2",
    "yelp5",
    "yelp2",
    "imdb",
    "cola",
    "ag_news",
    "dbpedia",
]
"""The paper's 14."""

SIZES = ["8", "32", "128", "512", "full"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of tasks")
    add("--tasks", nargs="+", default=[*TASKS], metavar="TASK", help="folders (default: all 14)")
    add(
        "--sizes",
        nargs="+",
        default=SIZES,
        metavar="N",
        help="examples per class, or full (default: 8 32 128 512 full)",
    )
    add("--draws", type=int, default=3, help="of the examples (default: %(default)s)")
    add("--background", action="store_true", help="heads have a reject output, too")
    add("--update", action="store_true", help="measure only what the stored result has not")
    add("--codes", type=Path, metavar="DIR", help="keep codes of texts here, to go on later")
    options.add_encoder(parser)
