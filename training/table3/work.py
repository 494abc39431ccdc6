"""The data and settings that all parts of a grid share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bitheads import __version__
from bitheads.export.source.encoder import Encoder, load_encoder
from bitheads.training.data.tasks import (
    Examples,
    Task,
    choose_tasks,
    read_index_order,
    read_task,
    read_test,
)
from bitheads.training.table3.config import Table3Config

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class GridTask:
    """A task with its test rows."""

    task: Task
    test: Examples

    @property
    def name(self) -> str:
        return self.task.name

    def parts(self) -> dict[str, Examples]:
        """train, dev and test."""
        return {"train": self.task.train, "dev": self.task.dev, "test": self.test}

    def to_json(self) -> dict[str, Any]:
        return {**self.task.to_json(), "test": self.test.to_json()}


@dataclass(frozen=True, eq=False)
class Work:
    """What every cell needs.

    Attributes:
        encoder: name or folder of the encoder that all starts from.
        loaded: that encoder, on the CPU; it is not trained.
        tasks: name -> task, in the order of the table's columns.
    """

    config: Table3Config
    encoder: str
    loaded: Encoder
    tasks: dict[str, GridTask]
    data: Path
    output: Path
    device: torch.device
    say: Say

    @property
    def base(self) -> dict[str, str]:
        """Which encoder all starts from."""
        return {"name": self.loaded.name, "weights_sha256": self.loaded.weights_sha256}

    def made_with(self) -> dict[str, Any]:
        names = ("torch", "transformers", "tokenizers")
        return {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "versions": {"bitheads": __version__, **{n: version(n) for n in names}},
        }


def open_work(
    config: Table3Config, encoder: str, data: Path, output: Path, device: torch.device, say: Say
) -> Work:
    """Reads all that is needed, and says how much it is.

    Raises InputError for unsound data, ExportError for an encoder that cannot be had.
    """
    types = choose_tasks(data, config.tasks)
    senses = config.wsd.task  # its rows have other columns
    names = config.tasks or tuple(sorted(set(types) - {senses}, key=read_index_order(data)))
    tasks = {}
    for name in names:
        seed = config.seeds[0]
        limits = config.max_train_rows, config.max_dev_rows
        task = read_task(data / name, types[name], *limits, seed, config.quotes)
        test = read_test(data / name, task, config.max_test_rows, seed)
        tasks[name] = GridTask(task, test)
        say(
            f"task {name}: {len(task.classes)} classes; {len(task.train)} training, "
            f"{len(task.dev)} dev and {len(test)} test rows"
        )
    say(f"loading encoder {encoder}")
    return Work(config, encoder, load_encoder(encoder), tasks, data, output, device, say)
