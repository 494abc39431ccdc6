"""A small encoder per task, distilled from a large one fine-tuned on it (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitheads.export.source.architecture import layer_stack
from bitheads.export.source.encoder import Encoder
from bitheads.training.data.batches import seed_of
from bitheads.training.data.tasks import Task
from bitheads.training.errors import TrainingError
from bitheads.training.multitask.config import MultitaskConfig
from bitheads.training.multitask.model import MultitaskModel
from bitheads.training.multitask.step import Stepper, computing
from bitheads.training.multitask.task_batches import LabelledBatch, TrainBatches, text_tokenizer
from bitheads.training.progress import Progress
from bitheads.training.table3.config import StudentConfig


class DistillingStepper(Stepper):
    """Steps whose loss is that of the labels and of the teacher's softened probabilities.

    Args:
        teacher_logits: float32 [examples, classes] of the task's training rows.
    """

    def __init__(
        self,
        model: MultitaskModel,
        batches: Mapping[str, TrainBatches],
        config: MultitaskConfig,
        student: StudentConfig,
        teacher_logits: NDArray[np.float32],
    ) -> None:
        super().__init__(model, batches, dict.fromkeys(batches, 1.0), config)
        self._student = student
        self._teacher = torch.from_numpy(teacher_logits).to(model.device)

    def loss(self, task: str, batch: LabelledBatch) -> torch.Tensor:
        with computing(self._model, self._config):
            logits = self._model.logits(task, batch.tokens).float()
        labels = torch.from_numpy(batch.label_ids).to(logits.device)
        hard = nn.functional.cross_entropy(logits, labels)
        temperature = self._student.temperature
        wanted = self._teacher[torch.from_numpy(batch.examples).to(logits.device)]
        soft = nn.functional.kl_div(
            torch.log_softmax(logits / temperature, dim=1),
            torch.softmax(wanted / temperature, dim=1),
            reduction="batchmean",
        )
        share = self._student.soft
        return share * temperature**2 * soft + (1 - share) * hard


def cut_encoder(encoder: Encoder, layers: int | None) -> Encoder:
    """The encoder with so many of its layers, evenly spaced, the last among them; None for all.

    The model is changed in place. Raises TrainingError if it has fewer layers.
    """
    if layers is None:
        return encoder
    if layers > encoder.num_layers:
        raise TrainingError(
            f"distil.layers: got {layers}, expected at most {encoder.num_layers}, which encoder "
            f"{encoder.name} has."
        )
    stack = layer_stack(encoder.model, encoder.num_layers)
    if stack is None:
        raise TrainingError(
            f"distil.layers: got {layers}, but encoder {encoder.name} has no list of layers to "
            "take some from. Leave it out, or name another encoder: distil.encoder."
        )
    kept = {round((i + 1) * encoder.num_layers / layers) - 1 for i in range(layers)}
    for i in reversed(range(encoder.num_layers)):
        if i not in kept:
            del stack[i]
    encoder.model.config.num_hidden_layers = layers
    return replace(encoder, num_layers=layers)


def train_student(
    encoder: Encoder,
    task: Task,
    teacher_logits: NDArray[np.float32],
    student: StudentConfig,
    config: MultitaskConfig,
    device: torch.device,
    say: Callable[[str], None],
) -> MultitaskModel:
    """Distils a student; returns it after its last step.

    Args:
        encoder: where it starts; trained in place.
        config: of the training, in which the student's settings already are.

    Raises TrainingError, naming step and task, for a loss that is not finite.
    """
    model = MultitaskModel(encoder, {task.name: len(task.classes)}, config, device)
    tokenizer = text_tokenizer(encoder, config.max_length)
    seed = seed_of(config.seed, "student") % 2**31
    batches = TrainBatches(task, tokenizer, encoder.pad_id, config.batch_size, seed)
    stepper = DistillingStepper(model, {task.name: batches}, config, student, teacher_logits)
    progress = Progress(config.steps, 0, say)
    for number in range(1, config.steps + 1):
        losses = stepper.step(number)
        progress.step(number, f"loss {losses[task.name]:.4f}")
    return model
