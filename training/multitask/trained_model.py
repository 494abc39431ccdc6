"""A multi-task encoder with its heads, as `bitheads train-encoder` wrote it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bitheads.export.source.encoder import load_encoder
from bitheads.training.config_file import make_config
from bitheads.training.multitask.checkpoint import HEADS, read_record
from bitheads.training.multitask.config import MultitaskConfig
from bitheads.training.multitask.model import MultitaskModel


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Encoder and heads, and the record they were written with."""

    model: MultitaskModel
    config: MultitaskConfig
    record: dict[str, Any]


def load_trained(folder: Path, device: torch.device) -> TrainedModel:
    """Loads what `bitheads train-encoder` wrote.

    Raises CheckpointError if the folder is damaged, or no such encoder.
    """
    record = read_record(folder)
    config = _config(record["config"])
    classes = {name: len(task["classes"]) for name, task in record["tasks"].items()}
    model = MultitaskModel(load_encoder(str(folder)), classes, config, device)
    weights = load_file(folder / HEADS)
    with torch.no_grad():
        for name, parameter in model.head_parameters().items():
            parameter.copy_(weights[name.removeprefix("head/")])
    model.train(False)
    return TrainedModel(model, config, record)


def _config(values: dict[str, Any]) -> MultitaskConfig:
    """A record's configuration; its JSON has null where a file of the same has no key."""
    known = {field.name for field in fields(MultitaskConfig)}
    return make_config(
        MultitaskConfig,
        {name: value for name, value in values.items() if name in known and value is not None},
    )
