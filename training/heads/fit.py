"""Training a head on packed features, with early stopping on the dev set."""

from __future__ import annotations

import copy
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
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.metrics import summarize

CPU = torch.device("cpu")

Features = PackedFeatures | LayerFeatures
"""Features that a head can be trained on."""


@dataclass(frozen=True)
class Epoch:
    """One line of the training table; `best` if its dev accuracy is the best so far."""

    number: int
    train_loss: float
    dev_loss: float
    dev_accuracy: float
    seconds: float
    best: bool


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
    train_labels: NDArray[np.int64],
    dev: Features,
    dev_labels: NDArray[np.int64],
    classes: int,
    config: FitConfig,
    report: Callable[[Epoch], None] = lambda epoch: None,
    progress: bool = False,
    device: torch.device = CPU,
) -> tuple[TaskHead, float]:
    """Trains a head; returns that of the epoch with the best dev accuracy, and that accuracy.

    Args:
        train_labels, dev_labels: int64 [texts], indices of classes.
        report: called after each epoch.

    Raises TrainingError if the loss is not finite.
    """
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    head = _new_head(train, classes, config).to(device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
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
    best_accuracy, best_epoch, best_state = -1.0, 0, head.state_dict()
    for number in range(1, config.epochs + 1):
        started_s = time.perf_counter()
        head.train()
        losses = []
        batches = shuffled_batches(train.num_tokens, config.batch_size, random)
        bar = tqdm(batches, desc=f"epoch {number}", leave=False, disable=not progress, unit="batch")
        for rows in bar:
            features, mask = padded(train, rows, device)
            labels = torch.from_numpy(train_labels[rows]).to(device)
            loss = nn.functional.cross_entropy(head(features, mask), labels)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"epoch {number}: the loss is {loss.item()}. Lower --learning-rate (got "
                    f"{config.learning_rate})."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        logits = evaluate(head, dev)
        dev_loss = nn.functional.cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(dev_labels)
        ).item()
        accuracy = summarize(dev_labels, logits.argmax(axis=1), classes)["accuracy"]
        better = accuracy > best_accuracy
        if better:
            best_accuracy, best_epoch = accuracy, number
            best_state = copy.deepcopy(head.state_dict())
        seconds = time.perf_counter() - started_s
        report(Epoch(number, float(np.mean(losses)), dev_loss, accuracy, seconds, better))
        if number - best_epoch >= config.patience:
            break
    head.load_state_dict(best_state)
    return head.eval(), best_accuracy


def _new_head(train: Features, classes: int, config: FitConfig) -> TaskHead:
    dim = train.dim if isinstance(train, LayerFeatures) else train.spec.dim
    heads = config.attention_heads
    if heads is None or heads < 1 or dim % heads:
        raise TrainingError(f"attention heads: got {heads}, expected a divisor of dim {dim}.")
    pooling, dropout = config.position_pooling, config.dropout
    if isinstance(train, LayerFeatures):
        layers = train.values.shape[1]
        return WeighingHead(layers, dim, classes, heads, pooling, dropout)
    return TaskHead(dim, classes, heads, pooling, dropout)


def evaluate(head: TaskHead, features: Features) -> NDArray[np.float32]:
    """The torch head's logits, float32 [texts, classes]."""
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
