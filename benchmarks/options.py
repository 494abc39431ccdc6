"""Options that several benchmarks have, and the command that a result is stored under.

--help imports this: nothing heavy is imported here.
"""

from __future__ import annotations

import argparse
import shlex
from importlib import import_module
from pathlib import Path

from bitheads.engine.errors import InputError

BUNDLE = Path("bundles/all-MiniLM-L6-v2")
ENCODER = "all-MiniLM-L6-v2"
HOST_LIBRARY = Path("build/host/libbitheads.so")
THREADS = 2

PLACEHOLDERS = {"data": "DIR", "peers_python": "PYTHON", "plot": "FILE", "published": "DIR"}
"""What a stored command says in place of paths, which are this machine's own."""


def add_bundle(parser: argparse.ArgumentParser, help: str | None = None) -> None:
    parser.add_argument("--bundle", type=Path, default=BUNDLE, metavar="DIR", help=help)


def add_encoder(parser: argparse.ArgumentParser, what: str = "the source model") -> None:
    parser.add_argument("--encoder", default=ENCODER, help=f"{what} (default: %(default)s)")


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of */test.tsv to draw texts from (default: the shipped sentences, one to "
        "twelve joined)",
    )


def add_threads(parser: argparse.ArgumentParser, what: str = "of each") -> None:
    parser.add_argument(
        "--threads", type=int, default=THREADS, help=f"{what} (default: %(default)s)"
    )


def add_quick(
    parser: argparse.ArgumentParser, help: str = "tiny sizes: to see that everything runs"
) -> None:
    parser.add_argument("--quick", action="store_true", help=help)


def require_at_least(least: int, options: argparse.Namespace, *names: str) -> None:
    """Raises InputError for the first of the options `names` that is below `least`."""
    for name in names:
        value = getattr(options, name)
        if value < least:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: got {value}, expected at least {least}.")


def command(routine: str, options: argparse.Namespace) -> str:
    """What was typed, as far as it changes what is measured.

    Those are the options in `SHOWN` of the routine's own module, where they are not at their
    default, in that order.
    """
    own = import_module(f"benchmarks.{routine}.options")
    parser = argparse.ArgumentParser()
    own.add_options(parser)
    words = ["python -m benchmarks", routine]
    for name in own.SHOWN:
        value = getattr(options, name)
        if value == parser.get_default(name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, list):
            words += map(shlex.quote, value)
        elif value is not True:
            number = f"{value:g}" if isinstance(value, float) else str(value)
            words.append(PLACEHOLDERS.get(name, number))
    return " ".join(words)
