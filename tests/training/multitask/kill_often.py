"""Runs `bitheads train-encoder`, kills it with -9 at random moments, then lets it end.

The first argument is a seed, the second the steps of a whole run, the rest are those of the
command. Each run is a process forked from this one, which has imported all and started no thread.
A run dies a few milliseconds after it has logged a step drawn at random; every other one when it
next writes a checkpoint, and so do two that were past the last step. The last line on standard
output is the number of killed runs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import bitheads.training.multitask.train  # noqa: F401
from bitheads.export.source.encoder import load_encoder
from bitheads.training.config_file import read_config
from bitheads.training.multitask.__main__ import main
from bitheads.training.multitask.config import MultitaskConfig

KILLS = 6


def import_all(config: Path) -> None:
    """What torch and transformers import when they are first used takes seconds."""
    load_encoder(read_config(config, MultitaskConfig).encoder)
    weight = torch.ones(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.AdamW([weight], fused=True).step()


def last_step(output: Path) -> int:
    """The last step whose log is on disk, 0 before the first."""
    try:
        lines = (output / "losses.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["step"]) if lines else 0


def is_killed(child: int, output: Path, step: int, is_writing: bool, delay_s: float) -> bool:
    """Kills the process at its moment; false if it has ended by itself before."""
    while last_step(output) < step or (is_writing and not any((output / "run").glob(".*.partial"))):
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill_often(seed: int, steps: int, arguments: list[str]) -> int:
    """The exit code of the last run."""
    import_all(Path(arguments[arguments.index("--config") + 1]))
    chance = random.Random(seed)
    output = Path(arguments[arguments.index("--output") + 1])
    moments = [
        (step, i % 2 == 1)
        for i, step in enumerate(sorted(chance.choices(range(1, steps), k=KILLS)))
    ]
    killed = 0
    for step, is_writing in [*moments, (steps, True), (steps, True)]:
        child = os.fork()
        if child == 0:
            os._exit(main(arguments))
        delay_s = chance.uniform(0, 0.003 if is_writing else 0.05)
        killed += is_killed(child, output, step, is_writing, delay_s)
    code = main(arguments)
    print(killed)
    return code


if __name__ == "__main__":
    sys.exit(kill_often(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
