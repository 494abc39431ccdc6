"""One step of multi-task pre-training, and the accuracies in between (Section 3.3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitheads.training.data.batches import seed_of
from bitheads.training.errors import TrainingError
from bitheads.training.metrics import summarize
from bitheads.training.multitask.config import MultitaskConfig, Precision
from bitheads.training.multitask.model import MultitaskModel
from bitheads.training.multitask.task_batches import LabelledBatch, TrainBatches

ADVICE = "Lower the learning rates, or look at the task's texts."


class Stepper:
    """Takes steps: a batch of every task, one update by the weighted sum of their losses.

    What step number n does follows from the weights, the optimizer's moments, the configuration
    and n: batches and dropout are drawn from seeds of their own each step, so there is no other
    state to lose.

    Attributes:
        optimizer: AdamW; matrices decay, biases and normalizations do not.
    """

    def __init__(
        self,
        model: MultitaskModel,
        batches: Mapping[str, TrainBatches],
        weights: Mapping[str, float],
        config: MultitaskConfig,
    ) -> None:
        self._model = model
        self._batches = batches
        self._weights = weights
        self._config = config
        self._parameters = model.parameters()
        # A dense gradient has a row for each word there is, and every task's batch makes a new one.
        model.encoder.model.get_input_embeddings().sparse = True
        groups = []
        for named, peak in (
            (model.encoder_parameters(), config.learning_rate),
            (model.head_parameters(), config.head_learning_rate),
        ):
            for decays in (True, False):
                parameters = [p for p in named.values() if (p.ndim > 1) == decays]
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": parameters, "peak": peak, "weight_decay": decay})
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)

    def step(self, number: int) -> dict[str, float]:
        """Takes step `number`, counted from 1; the mean loss of each task, before weighting.

        Raises TrainingError, before any weight is changed, for losses or gradients that are not
        finite.
        """
        torch.manual_seed(seed_of(self._config.seed, "dropout", number))
        self._model.train()
        parts = self._config.accumulation
        sums = []
        for task, weight in self._weights.items():
            total = torch.zeros((), device=self._model.device)
            for part in range(parts):
                # A task at a time, so that one batch's activations are in memory, not all tasks'.
                loss = self.loss(task, self._batches[task][(number - 1) * parts + part])
                (loss * (weight / parts)).backward()  # type: ignore[no-untyped-call]
                total += loss.detach() / parts
            sums.append(total)
        losses = dict(zip(self._weights, torch.stack(sums).tolist(), strict=True))
        for task, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(f"step {number}, task {task}: the loss is {value}. {ADVICE}")
        for parameter in self._parameters.values():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"step {number}, {self._culprit()}: a gradient is not finite. {ADVICE}"
            )
        nn.utils.clip_grads_with_norm_(
            self._parameters.values(), self._config.max_gradient_norm, norm
        )
        factor = learning_rate_factor(number, self._config)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses

    def loss(self, task: str, batch: LabelledBatch) -> torch.Tensor:
        """The loss of a batch, the mean over its rows."""
        with computing(self._model, self._config):
            logits = self._model.logits(task, batch.tokens)
        labels = torch.from_numpy(batch.label_ids).to(logits.device)
        return nn.functional.cross_entropy(logits.float(), labels)

    def _culprit(self) -> str:
        """The task whose head has such a gradient, or the encoder, which is every task's."""
        for name, parameter in self._model.head_parameters().items():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                return f"task {name.split('/')[1]}"
        return "encoder"


def learning_rate_factor(number: int, config: MultitaskConfig) -> float:
    """What step `number`, counted from 1, multiplies the peaks by: up, then down linearly."""
    rising = round(config.warmup * config.steps)
    if number <= rising:
        return number / rising
    return (config.steps - number + 1) / (config.steps - rising + 1)


@contextmanager
def computing(model: MultitaskModel, config: MultitaskConfig) -> Iterator[None]:
    """Has torch compute in the configuration's precision."""
    is_bf16 = config.precision is Precision.BF16
    with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bf16):
        yield


def evaluate(
    model: MultitaskModel, dev: Mapping[str, Sequence[LabelledBatch]], config: MultitaskConfig
) -> dict[str, dict[str, float]]:
    """Task -> accuracy, macro_f1 and matthews on its dev rows."""
    results = {}
    for task, batches in dev.items():
        logits = logits_of(model, task, batches, config)
        truth = np.empty(len(logits), np.int64)
        for batch in batches:
            truth[batch.examples] = batch.label_ids
        results[task] = summarize(truth, logits.argmax(axis=1), logits.shape[1])
    return results


def logits_of(
    model: MultitaskModel, task: str, batches: Sequence[LabelledBatch], config: MultitaskConfig
) -> NDArray[np.float32]:
    """One task's logits, float32 [examples, classes], in the examples' order.

    Args:
        batches: every example once.
    """
    model.train(False)
    num_examples = sum(len(batch.examples) for batch in batches)
    logits = np.empty((num_examples, model.heads[task].output.out_features), np.float32)
    for batch in batches:
        with torch.inference_mode(), computing(model, config):
            logits[batch.examples] = model.logits(task, batch.tokens).float().cpu().numpy()
    return logits
