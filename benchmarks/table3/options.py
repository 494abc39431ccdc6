"""The options of `python -m benchmarks table3`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import options

CONFIG = Path("training/configs/table3_minilm.toml")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder of tasks")
    add(
        "--output", type=Path, required=True, metavar="DIR", help="of `bitheads table3`: it goes on"
    )
    options.add_encoder(parser)
    add("--config", type=Path, default=CONFIG, metavar="TOML", help="(default: %(default)s)")
    add("--device", default="auto", help="see `bitheads table3` (default: %(default)s)")
    add("--name", default="minilm", help="of the stored result, table3_NAME (default: %(default)s)")
    add("--report-only", action="store_true", help="train nothing that is not done")
