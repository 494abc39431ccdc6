"""`bitheads COMMAND ...`: finds the command's module and runs it; loads nothing else."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import NamedTuple, NoReturn

from bitheads import __version__


class Command(NamedTuple):
    """A command of `bitheads`.

    Attributes:
        module: has `main`, which takes the arguments and returns the exit code.
        does: one line of help.
    """

    module: str
    does: str


COMMANDS = {
    "build": Command("bitheads.export.build", "make a bundle of a trained encoder"),
    "predict": Command("bitheads.engine.commands.predict", "answer every task of a bundle's heads"),
    "serve": Command("bitheads.engine.commands.serve", "answer over HTTP"),
    "encode": Command("bitheads.engine.commands.encode", "keep the features of texts in a store"),
    "backfill": Command("bitheads.engine.commands.backfill", "answer tasks for all of a store"),
    "store": Command("bitheads.engine.commands.store", "look at a store, check it, compact it"),
    "train-head": Command("bitheads.training.heads.__main__", "train one task's head"),
    "train-heads": Command(
        "bitheads.training.many_heads.__main__", "train a head for each task of a folder"
    ),
    "train-encoder": Command(
        "bitheads.training.multitask.__main__", "train an encoder on many tasks at once"
    ),
    "table3": Command(
        "bitheads.training.table3.__main__", "measure what sharing an encoder costs and gains"
    ),
    "plan": Command(
        "bitheads.export.plans.__main__", "build a TensorRT plan of a bundle's encoder"
    ),
    "host-tokenizer": Command(
        "bitheads.export.host_tokenizer", "add the tokenizer of the C++ host to a bundle"
    ),
    "device-code": Command("bitheads.export.device_code", "compile the CUDA kernels"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"bitheads {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(COMMANDS)
        print(
            f"error: there is no command {name!r}.{meant} Expected one of {known}.", file=sys.stderr
        )
        return 2
    code: int = import_module(COMMANDS[name].module).main(arguments)
    return code


def run() -> NoReturn:
    """Runs the command that this process was started with, and ends the process."""
    code = main()
    if code == 130:  # stopped in the middle of its work, maybe with threads of TensorRT's
        import_module("bitheads.engine.commands.command_line").leave(code)
    sys.exit(code)


def usage() -> str:
    """What `bitheads --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.does}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: bitheads COMMAND [options]",
            "",
            "One encoder pass over a text, any number of predictions from its bits.",
            "",
            "commands:",
            *lines,
            "",
            "`bitheads COMMAND --help` has the options of each, `bitheads --version` the version.",
        ]
    )


if __name__ == "__main__":
    run()
