"""The encoders of a grid: each is one multi-task run, resumed if it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitheads.training.errors import OtherRunError
from bitheads.training.multitask.checkpoint import RECORD
from bitheads.training.multitask.config import MultitaskConfig
from bitheads.training.multitask.train import train_multitask
from bitheads.training.table3.work import Work

FOLDER = "encoders"


@dataclass(frozen=True)
class EncoderPlan:
    """An encoder that is trained.

    Attributes:
        name: of its folder.
        config: all that decides what comes out.
    """

    name: str
    config: MultitaskConfig


def shared_encoder(
    work: Work, name: str, without: Sequence[str] = (), signs: bool = False
) -> EncoderPlan:
    """One encoder for many tasks: all but some.

    Args:
        signs: whether it learns with the sign in the forward pass.
    """
    tasks = tuple(task for task in work.tasks if task not in without)
    config = work.config.signed if signs else work.config.multitask
    return EncoderPlan(name, _decided(work, replace(config, signs=signs), tasks))


def own_encoder(work: Work, task: str) -> EncoderPlan:
    """The encoder fine-tuned end to end on one task."""
    return EncoderPlan(f"only-{task}", _decided(work, work.config.finetune, (task,)))


def _decided(work: Work, config: MultitaskConfig, tasks: tuple[str, ...]) -> MultitaskConfig:
    grid = work.config
    return replace(
        config,
        encoder=work.encoder,
        tasks=tasks,
        exclude_tasks=(),
        exclude_types=(),
        sizes={task: size for task, size in config.sizes.items() if task in tasks},
        quotes={task: said for task, said in (grid.quotes or {}).items() if task in tasks} or None,
        max_train_rows=grid.max_train_rows,
        max_dev_rows=grid.max_dev_rows,
        max_length=grid.max_length,
        precision=grid.precision,
        seed=grid.seeds[0],
    )


def encoder_identity(work: Work, plan: EncoderPlan | None) -> dict[str, Any]:
    """All that an encoder follows from; without a plan, of the one that all start from."""
    if plan is None:
        return {**work.base, "training": None}
    config = plan.config.to_json()
    del config["encoder"]  # its name here; its weights' hash says which it is
    data = {task: work.tasks[task].task.train.sha256 for task in plan.config.tasks}
    return {**work.base, "training": config, "trained_on": data}


def encoder_folder(work: Work, plan: EncoderPlan) -> Path:
    return work.output / FOLDER / plan.name


def train_encoder(work: Work, plan: EncoderPlan, replace_others: bool = False) -> Path:
    """Trains what is left to train of an encoder; returns its folder.

    Args:
        replace_others: whether an encoder of another configuration is trained again.

    Raises TrainingError, naming step and task, for a loss that is not finite; OtherRunError for an
    encoder of another configuration or start, CheckpointError where nothing can be written.
    """
    folder = encoder_folder(work, plan)
    if not (folder / RECORD).exists():
        work.say(f"encoder {plan.name}: training on {len(plan.config.tasks)} tasks")

    def say(message: str) -> None:
        work.say(f"encoder {plan.name}: {message}")

    def train(resume: bool) -> None:
        train_multitask(
            plan.config,
            work.data,
            folder,
            str(work.device),
            resume=resume,
            force=not resume,
            say=say,
            weights_sha256=work.base["weights_sha256"],
        )

    try:
        train(resume=True)
    except OtherRunError:
        if not replace_others:
            raise
        train(resume=False)
    return folder


def remove_encoder(work: Work, plan: EncoderPlan) -> None:
    """Makes room, once no cell is left that reads the encoder."""
    shutil.rmtree(encoder_folder(work, plan), ignore_errors=True)
