"""Cells of encoders with the heads they were trained with: as they are, and their students."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitheads.export.source.encoder import load_encoder
from bitheads.training.data.tasks import Examples
from bitheads.training.multitask.config import MultitaskConfig
from bitheads.training.multitask.model import MultitaskModel
from bitheads.training.multitask.step import logits_of
from bitheads.training.multitask.task_batches import LabelledBatch, all_batches, text_tokenizer
from bitheads.training.multitask.trained_model import load_trained
from bitheads.training.table3.cells.cell_metrics import cell_metrics
from bitheads.training.table3.cells.student import cut_encoder, train_student
from bitheads.training.table3.config import as_json
from bitheads.training.table3.encoders import EncoderPlan, encoder_identity
from bitheads.training.table3.work import GridTask, Work


def own_identity(work: Work, plan: EncoderPlan, task: GridTask) -> dict[str, Any]:
    """All that the result of an encoder with its own head follows from."""
    return {"encoder": encoder_identity(work, plan), "data": task.to_json()}


def student_identity(work: Work, teacher: EncoderPlan, task: GridTask) -> dict[str, Any]:
    """All that a student's result follows from."""
    return {**own_identity(work, teacher, task), "distil": as_json(work.config.distil)}


def as_is_cell(work: Work, folder: Path, task: GridTask) -> dict[str, Any]:
    """The result of a trained encoder with the head that it has for the task.

    Args:
        folder: the encoder's.
    """
    trained = load_trained(folder, work.device)
    return _measure(work, trained.model, task, trained.config)


def student_cell(
    work: Work, teacher: EncoderPlan, prepare: Callable[[], Path], task: GridTask
) -> dict[str, Any]:
    """Distils the student of an encoder that was fine-tuned on the task; the student's result.

    Args:
        prepare: gives the teacher's folder, and trains the teacher first if need be.
    """
    trained = load_trained(prepare(), work.device)
    batches = _batches(work, trained.model, task.task.train)
    logits = logits_of(trained.model, task.name, batches, trained.config)
    student = work.config.distil
    # Loaded again: it is changed and trained in place.
    encoder = cut_encoder(load_encoder(student.encoder or work.encoder), student.layers)
    config = replace(
        teacher.config,
        position_pooling=student.position_pooling,
        steps=student.steps,
        batch_size=student.batch_size,
        accumulation=1,
        learning_rate=student.learning_rate,
        head_learning_rate=student.head_learning_rate,
    )
    model = train_student(
        encoder,
        task.task,
        logits,
        student,
        config,
        work.device,
        lambda line: work.say(f"student {task.name}: {line}"),
    )
    result = _measure(work, model, task, config)
    result["shape"] = {"layers": encoder.num_layers, "dim": encoder.dim}
    return result


def _measure(
    work: Work, model: MultitaskModel, task: GridTask, config: MultitaskConfig
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for part in ("dev", "test"):
        examples = task.parts()[part]
        logits = logits_of(model, task.name, _batches(work, model, examples), config)
        result[part] = cell_metrics(examples.label_ids, logits, task.task.classes)
    return result


def _batches(work: Work, model: MultitaskModel, examples: Examples) -> list[LabelledBatch]:
    encoder = model.encoder
    tokenizer = text_tokenizer(encoder, work.config.max_length)
    return all_batches(examples, tokenizer, encoder.pad_id)
