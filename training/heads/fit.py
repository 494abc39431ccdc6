"""Training a head on packed features, with early stopping on the dev set."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from bitheads.engine.features.codes import code_affine, unpack
from bitheads.engine.features.packed import PackedFeatures
from bitheads.training.data.batches import shuffled_batches
from bitheads.training.errors import TrainingError
from bitheads.training.heads.config import FitConfig
from bitheads.training.heads.layer_features import LayerFeatures, WeighingHead
from bitheads.training.heads.objectives.objective import Objective, Targets, mean_loss
from bitheads.training.heads.task_head import TaskHead

CPU = torch.device("cpu")

Features = PackedFeatures | LayerFeatures
"""Features that a head can be trained on."""

BACKGROUND_SHARE = 0.5
"""Background texts beside each training text of a step."""


@dataclass(frozen=True)
class Epoch:
    """One line of the training table; `best` if its dev score is the best so far."""

    number: int
    train_loss: float
    dev_loss: float
    dev_score: float
    seconds: float
    best: bool


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained head, the loss it was trained with, and its score on dev."""

    head: TaskHead
    loss: nn.Module
    score: float


@contextmanager
def _one_thread() -> Iterator[None]:
    """Trains on one thread: a head's matrices are too small to share.

    On two busy cores one thread was 10 times as fast.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def fit(
    train: Features,
    train_targets: Targets,
    dev: Features,
    dev_targets: Targets,
    objective: Objective,
    config: FitConfig,
    report: Callable[[Epoch], None] = lambda epoch: None,
    progress: bool = False,
    device: torch.device = CPU,
    background: PackedFeatures | None = None,
) -> Fitted:
    """Trains a head; returns that of the epoch with the best dev score.

    Args:
        train_targets, dev_targets: of `objective.targets`.
        report: called after each epoch.
        background: texts that are none of the head's business. With them the head has one more
            output, which learns to tell them from the training texts.

    Raises TrainingError if the loss is not finite.
    """
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    num_outputs = objective.num_logits + (background is not None)
    head = _new_head(train, num_outputs, config).to(device)
    loss_of = objective.new_loss(train_targets).to(device)
    both = nn.ModuleList([head, loss_of])
    optimizer = torch.optim.AdamW(
        both.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    steps = config.epochs * -(-len(train) // config.batch_size)
    # With 20 steps the rise would be the first step alone, and the schedule would divide by 0.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=steps + (steps == 20),
        pct_start=0.05,
        anneal_strategy="linear",
    )
    best_score, best_epoch, best_state = -math.inf, 0, both.state_dict()
    for number in range(1, config.epochs + 1):
        started_s = time.perf_counter()
        both.train()
        losses = []
        batches = shuffled_batches(train.num_tokens, config.batch_size, random)
        bar = tqdm(batches, desc=f"epoch {number}", leave=False, disable=not progress, unit="batch")
        for rows in bar:
            features, mask = padded(train, rows, device)
            targets = torch.from_numpy(train_targets[rows]).to(device)
            outputs = head(features, mask)
            if background is None:
                loss = loss_of(outputs, targets)
            else:
                count = min(len(background), max(1, round(len(rows) * BACKGROUND_SHARE)))
                others = padded(background, random.integers(0, len(background), count), device)
                loss = objective.loss_with_background(loss_of, outputs, targets, head(*others))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"epoch {number}: the loss is {loss.item()}. Lower --learning-rate (got "
                    f"{config.learning_rate})."
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        both.eval()
        logits_of_dev = evaluate(head, dev)[:, : objective.num_logits]
        dev_loss = mean_loss(loss_of.to(CPU), logits_of_dev, dev_targets)
        score = objective.score(logits_of_dev, dev_targets, loss_of)
        loss_of.to(device)
        better = score > best_score
        if better:
            best_score, best_epoch = score, number
            best_state = copy.deepcopy(both.state_dict())
        seconds = time.perf_counter() - started_s
        report(Epoch(number, float(np.mean(losses)), dev_loss, score, seconds, better))
        if number - best_epoch >= config.patience:
            break
    both.load_state_dict(best_state)
    both.eval()
    return Fitted(head, loss_of.to(CPU), best_score)


def _new_head(train: Features, outputs: int, config: FitConfig) -> TaskHead:
    dim = train.dim if isinstance(train, LayerFeatures) else train.spec.dim
    heads = config.attention_heads
    if heads is None or heads < 1 or dim % heads:
        raise TrainingError(f"attention heads: got {heads}, expected a divisor of dim {dim}.")
    pooling, dropout = config.position_pooling, config.dropout
    if isinstance(train, LayerFeatures):
        layers = train.values.shape[1]
        return WeighingHead(layers, dim, outputs, heads, pooling, dropout)
    return TaskHead(dim, outputs, heads, pooling, dropout)


def evaluate(head: TaskHead, features: Features) -> NDArray[np.float32]:
    """The torch head's outputs, float32 [texts, outputs]."""
    head.eval()
    device = head.output.weight.device
    order = np.argsort(features.num_tokens, kind="stable")
    logits = np.empty((len(features), head.output.out_features), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            logits[rows] = head(*padded(features, rows, device)).cpu().numpy()
    return logits


def padded(
    features: Features, rows: NDArray[np.int64], device: torch.device = CPU
) -> tuple[torch.Tensor, torch.Tensor]:
    """Some texts' features, float32 [rows, tokens, dim], and the mask of the real tokens.

    The features of LayerFeatures are float32 [rows, tokens, layers, dim].
    """
    counts = features.num_tokens[rows]
    positions = np.arange(counts.max())
    mask = positions < counts[:, None]
    # Padding repeats the first token's code; the mask keeps it out of everything.
    tokens = features.offsets[rows][:, None] + np.where(mask, positions, 0)
    if isinstance(features, LayerFeatures):
        layers = torch.from_numpy(features.values[tokens.ravel()]).to(device).float()
        return layers.reshape(*tokens.shape, *layers.shape[1:]), torch.from_numpy(mask).to(device)
    scale, offset = code_affine(features.spec, features.calibration)
    values = unpack(
        features.codes[tokens.ravel()],
        features.spec.dim,
        features.spec.quantization.value,
        scale,
        offset,
    )
    unpacked = torch.from_numpy(values.reshape(*tokens.shape, -1))
    return unpacked.to(device), torch.from_numpy(mask).to(device)
