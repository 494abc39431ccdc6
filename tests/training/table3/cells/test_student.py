"""Distilling, on what it shall learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitheads.export.source.encoder import load_encoder
from bitheads.training.data.tasks import read_task
from bitheads.training.errors import TrainingError
from bitheads.training.multitask.config import MultitaskConfig
from bitheads.training.multitask.step import logits_of
from bitheads.training.multitask.task_batches import all_batches, text_tokenizer
from bitheads.training.table3.cells.student import cut_encoder, train_student
from bitheads.training.table3.config import StudentConfig

CONFIG = MultitaskConfig(
    steps=150, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-3, max_length=24
)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta"])
def test_layers_that_are_kept(tiny_encoder: Callable[[str], Path], family: str) -> None:
    whole = load_encoder(str(tiny_encoder(family)))
    last = dict(whole.model.named_parameters())
    cut = cut_encoder(load_encoder(str(tiny_encoder(family))), 1)
    assert cut.num_layers == 1
    stack = "transformer" if family == "distilbert" else "encoder"
    for name, parameter in cut.model.named_parameters():
        source = name.replace(f"{stack}.layer.0.", f"{stack}.layer.{whole.num_layers - 1}.")
        assert torch.equal(parameter, last[source])
    hidden = cut.model(torch.tensor([[2, 5, 3]]), output_hidden_states=True).hidden_states
    assert len(hidden) == 2
    assert cut_encoder(whole, None) is whole
    with pytest.raises(TrainingError, match="got 9, expected at most"):
        cut_encoder(whole, 9)


def test_a_student_learns_from_its_teacher_alone(
    tiny_encoder: Callable[[str], Path], task_folder: Path
) -> None:
    """The labels have no part in the loss, and the teacher says the opposite."""
    task = read_task(task_folder / "sport", None, max_train_rows=40)
    encoder = cut_encoder(load_encoder(str(tiny_encoder("bert"))), 2)
    teacher = np.where(np.eye(2)[1 - task.train.label_ids], 4.0, -4.0).astype(np.float32)
    student = StudentConfig(soft=1.0)
    lines: list[str] = []
    device = torch.device("cpu")
    model = train_student(encoder, task, teacher, student, CONFIG, device, lines.append)
    batches = all_batches(task.train, text_tokenizer(encoder, None), encoder.pad_id)
    predicted = logits_of(model, "sport", batches, CONFIG).argmax(axis=1)
    assert (predicted != task.train.label_ids).mean() > 0.9
    assert lines[-1].startswith("step 150/150: loss ")


def test_loss_that_is_not_finite(tiny_encoder: Callable[[str], Path], task_folder: Path) -> None:
    task = read_task(task_folder / "sport", None, max_train_rows=10)
    encoder = load_encoder(str(tiny_encoder("bert")))
    teacher = np.full((10, 2), np.inf, np.float32)
    config = replace(CONFIG, steps=1)
    with pytest.raises(TrainingError, match="step 1, task sport: the loss is nan"):
        train_student(
            encoder, task, teacher, StudentConfig(), config, torch.device("cpu"), lambda line: None
        )
