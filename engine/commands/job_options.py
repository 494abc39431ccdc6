"""Options that the jobs over a feature store have in common."""

from __future__ import annotations

import argparse
import math
import sys

from bitheads.engine.errors import InputError

RUNNERS = ("local", "ray")
"""What runs a job: this process, or a Ray cluster."""


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--runner", choices=RUNNERS, default="local", help="ray: on all machines of a Ray cluster")
    add(
        "--workers",
        type=int,
        default=1,
        help="with --runner ray: processes that work at the same time (default: %(default)s)",
    )


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=sys.stderr.isatty(),
        help="(default: on a terminal)",
    )


def check_above_zero(option: str, value: float | None) -> None:
    """Raises InputError unless it is a number above 0; None is an option that was left out."""
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"{option}: got {value}, expected a number above 0.")
