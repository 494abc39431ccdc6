"""Training a head on packed features, as far as texts that are held back gain by it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from bitheads.training.data.batches import shuffled_batches
from bitheads.training.errors import TrainingError
from bitheads.training.heads.batch_inputs import CPU, Features, inputs_of
from bitheads.training.heads.config import FitConfig
from bitheads.training.heads.folded_task_head import FoldedTaskHead
from bitheads.training.heads.layer_features import LayerFeatures, WeighingHead
from bitheads.training.heads.linear_model import LinearModel, drawn, linear_models, pool
from bitheads.training.heads.objectives.objective import Objective, Targets, mean_loss
from bitheads.training.heads.pair_features import Codes, PairFeatures
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.heads.two_texts_head import TwoTextsHead

Trainable = FoldedTaskHead | TwoTextsHead
"""Heads that are trained here."""

BACKGROUND_SHARE = 0.5
"""Background texts beside each training text of a step."""

MOST_BACKGROUND = 2000
"""Background texts beside a linear model's."""

LEAST_STEPS = 30
"""Of an epoch: of few texts it is as many passes as that takes."""

FEW_STEPS = 100
"""An epoch of one pass would have, below which it is two passes."""

BATCH_TOKENS = 8192
"""Of texts that are evaluated together, if those are at least 64: words are one or two each."""


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
    """A trained head.

    Attributes:
        loss: what it was trained with.
        score: of the objective, of texts that were held back.
        held_out: float32 [rows, outputs], the outputs for texts that were held back: dev, or each
            training text of a head that was trained without it.
        targets: of those.
        epochs: that it was trained; 0 is the linear model.
        linear_score: as `score`, of the linear model; None where there is none.
    """

    head: Trainable
    loss: nn.Module
    score: float
    held_out: NDArray[np.float32]
    targets: Targets
    epochs: int
    linear_score: float | None


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
    background: Codes | None = None,
    linear: Fitted | None = None,
) -> Fitted:
    """Trains a head; returns that of the epoch with the best dev score.

    Epoch 0 is the best linear model of the pooled features, so a head is never worse on dev. (It is
    not where training begins: from there, heads ended a point or two lower than from nothing.)

    Args:
        train_targets, dev_targets: of `objective.targets`.
        report: called after each epoch.
        background: texts that are none of the head's business. With them the head has one more
            output, which learns to tell them from the training texts.
        linear: of `fit_linear`, if that was asked before.

    Raises TrainingError if the loss is not finite.
    """
    judge = _Judge(objective, objective.of_rows(dev_targets), dev_targets)
    best = linear
    if best is None and not isinstance(train, LayerFeatures):
        assert not isinstance(dev, LayerFeatures), "as train is"
        best = fit_linear(
            train, train_targets, dev, dev_targets, objective, config, report, background
        )
    linear_score = None if best is None else best.score
    run = _Run(train, train_targets, objective, config, background, progress, device)
    # Of epochs alone: what they have to beat is no reason to stop while they gain.
    best_score, best_number = -math.inf, 0
    for number in range(1, config.epochs + 1):
        started_s = time.perf_counter()
        train_loss = run.epoch(number)
        outputs = evaluate(run.head, dev)
        loss_of = copy.deepcopy(run.loss_of).to(CPU)
        score, loss = judge.score(outputs, loss_of), judge.loss(outputs, loss_of)
        better = best is None or score > best.score
        if better:
            head = copy.deepcopy(run.head)
            best = Fitted(head, loss_of, score, outputs, dev_targets, number, linear_score)
        seconds = time.perf_counter() - started_s
        report(Epoch(number, train_loss, loss, score, seconds, better))
        if score > best_score:
            best_score, best_number = score, number
        elif number - best_number >= config.patience:
            break
    assert best is not None, "there is at least one epoch"
    best.head.eval()
    return best


@_one_thread()
def fit_linear(
    train: Codes,
    train_targets: Targets,
    dev: Codes,
    dev_targets: Targets,
    objective: Objective,
    config: FitConfig,
    report: Callable[[Epoch], None] = lambda epoch: None,
    background: Codes | None = None,
) -> Fitted:
    """The best linear model as a head; what it is given is as for `fit`, which calls this."""
    started_s = time.perf_counter()
    judge = _Judge(objective, objective.of_rows(dev_targets), dev_targets)
    model = _best_linear(train, train_targets, dev, judge, objective, config, background)
    outputs = evaluate(head := _linear_head(train, model, config), dev)
    score, loss = judge.score(outputs, model.loss), judge.loss(outputs, model.loss)
    report(Epoch(0, math.nan, loss, score, time.perf_counter() - started_s, True))
    return Fitted(head, model.loss, score, outputs, dev_targets, 0, score)


@_one_thread()
def fit_without_dev(
    train: Codes,
    targets: NDArray[Any],
    objective: Objective,
    config: FitConfig,
    report: Callable[[Epoch], None] = lambda epoch: None,
    progress: bool = False,
    device: torch.device = CPU,
    background: Codes | None = None,
) -> Fitted:
    """Trains a head on all texts as far as was best for parts of them that were held back in turn.

    Args:
        targets: an array with a row per text.

    All else is as for `fit`; the score, and the held-out outputs, are of all texts that were held
    back, each by a head that had not seen it.
    """
    folds = held_back(objective, targets, config.seed)
    rows = np.concatenate(folds)
    judge = _Judge(objective, objective.of_rows(targets[rows]), targets[rows])
    outputs: dict[int, list[NDArray[np.float32]]] = {}  # of the linear model's penalties, below 0
    losses: dict[int, list[float]] = {}
    started_s = time.perf_counter()
    pooled = pool(train, config.position_pooling)
    pooled_background = None if background is None else _pooled_background(background, config)
    train_losses: dict[int, list[float]] = {}
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(train)), fold)
        of_fold = objective.of_rows(targets[fold])

        def note(
            key: int,
            found: NDArray[np.float32],
            loss_of: nn.Module,
            of_fold: NDArray[Any] = of_fold,
        ) -> None:
            outputs.setdefault(key, []).append(found)
            loss = mean_loss(loss_of, found[:, : objective.num_logits], of_fold)
            losses.setdefault(key, []).append(loss * len(found))

        some = rest[drawn(len(rest), config.seed)]
        models = linear_models(pooled[some], targets[some], objective, pooled_background)
        for number, model in enumerate(models):
            note(-1 - number, model(pooled[fold]), model.loss)
        run = _Run(train[rest], targets[rest], objective, config, background, progress, device)
        for number in range(1, config.epochs + 1):
            train_losses.setdefault(number, []).append(run.epoch(number))
            note(number, evaluate(run.head, train[fold]), run.loss_of.to(CPU))
            run.loss_of.to(device)
    mean_losses = {key: sum(found) / len(rows) for key, found in losses.items()}
    linear = min((key for key in mean_losses if key < 0), key=mean_losses.__getitem__)
    trained = min((key for key in mean_losses if key > 0), key=mean_losses.__getitem__)
    best = linear if mean_losses[linear] <= mean_losses[trained] else trained
    if best > 0:
        run = _Run(train, targets, objective, config, background, progress, device)
        for number in range(1, best + 1):
            run.epoch(number)
        head, loss_of = run.head.eval(), run.loss_of.to(CPU)
        # Nothing is held back of this one, but it has seen these texts: if it is no better at them
        # than heads that had not, training went wrong, as it may with another order of texts.
        if judge.loss(evaluate(head, train[rows]), loss_of) > mean_losses[best]:
            best = linear
    if best < 0:
        some = drawn(len(train), config.seed)
        models = linear_models(pooled[some], targets[some], objective, pooled_background)
        model = next(islice(models, -1 - best, None))
        head, loss_of = _linear_head(train, model, config), model.loss
    scores = {key: judge.score(np.concatenate(found), loss_of) for key, found in outputs.items()}
    seconds = time.perf_counter() - started_s
    for key in (linear, *range(1, config.epochs + 1)):
        loss = float(np.mean(train_losses[key])) if key > 0 else math.nan
        epoch = Epoch(max(key, 0), loss, mean_losses[key], scores[key], seconds, key == best)
        report(epoch)
    return Fitted(
        head,
        loss_of,
        scores[best],
        np.concatenate(outputs[best]),
        targets[rows],
        max(best, 0),
        scores[linear],
    )


FOLDS = 5
MANY = 1000
"""Training texts from which on one part in FOLDS is held back, once, in place of each in turn."""


def held_back(objective: Objective, targets: NDArray[Any], seed: int) -> list[NDArray[np.int64]]:
    """Rows that are held back in turn, of single labels each label's alike."""
    random = np.random.default_rng(seed)
    count = len(targets)
    order = random.permutation(count)
    if targets.ndim == 1 and targets.dtype.kind == "i":
        order = order[np.argsort(targets[order], kind="stable")]
    # Of neighbours, which have the same label if they can, each is in another part.
    parts = [np.sort(order[first::FOLDS]) for first in range(min(FOLDS, count))]
    return parts if count < MANY else parts[:1]


@dataclass(frozen=True, eq=False)
class _Judge:
    """How good outputs are for texts that were held back."""

    objective: Objective
    rows: NDArray[Any]
    targets: Targets

    def score(self, outputs: NDArray[np.float32], loss: nn.Module) -> float:
        return self.objective.score(outputs[:, : self.objective.num_logits], self.targets, loss)

    def loss(self, outputs: NDArray[np.float32], loss: nn.Module) -> float:
        return mean_loss(loss, outputs[:, : self.objective.num_logits], self.rows)


def _best_linear(
    train: Codes,
    targets: Targets,
    dev: Codes,
    judge: _Judge,
    objective: Objective,
    config: FitConfig,
    background: Codes | None,
) -> LinearModel:
    """That with the least loss on dev; weaker penalties than the best are not tried."""
    pooled, of_dev = (pool(features, config.position_pooling) for features in (train, dev))
    if isinstance(targets, np.ndarray):
        some = drawn(len(train), config.seed)
        pooled, targets = pooled[some], targets[some]
    of_background = None if background is None else _pooled_background(background, config)
    best: tuple[float, LinearModel] | None = None
    for model in linear_models(pooled, targets, objective, of_background):
        loss = judge.loss(model(of_dev), model.loss)
        if best is not None and loss > best[0]:
            break
        best = loss, model
    assert best is not None, "there are penalties"
    return best[1]


def _pooled_background(background: Codes, config: FitConfig) -> NDArray[np.float32]:
    rows = drawn(len(background), config.seed)[:MOST_BACKGROUND]
    return pool(background[rows], config.position_pooling)


def _linear_head(train: Codes, model: LinearModel, config: FitConfig) -> Trainable:
    head = _new_head(train, len(model.bias), config)
    weight, bias = torch.from_numpy(model.weight), torch.from_numpy(model.bias)
    head.set_linear(weight, bias, model.largest)
    return head.eval()


class _Run:
    """A head that is trained epoch by epoch."""

    def __init__(
        self,
        train: Features,
        targets: Targets,
        objective: Objective,
        config: FitConfig,
        background: Codes | None,
        progress: bool,
        device: torch.device,
    ) -> None:
        torch.manual_seed(config.seed)
        self._train, self._objective, self._config = train, objective, config
        self._background, self._progress, self._device = background, progress, device
        self._random = np.random.default_rng(config.seed)
        outputs = objective.num_logits + (background is not None)
        self.head = _new_head(train, outputs, config).to(device)
        self.loss_of = objective.new_loss(targets).to(device)
        self._both = nn.ModuleList([self.head, self.loss_of])
        self._targets = objective.of_rows(targets)
        self._optimizer = torch.optim.AdamW(
            self._both.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps_of_pass = -(-len(train) // config.batch_size)
        least = 2 if steps_of_pass < FEW_STEPS else 1
        self._passes = max(least, -(-LEAST_STEPS // steps_of_pass))
        steps = config.epochs * self._passes * steps_of_pass
        # With 20 steps the rise would be the first step alone, and the schedule would divide by 0.
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            config.learning_rate,
            total_steps=steps + (steps == 20),
            pct_start=0.05,
            anneal_strategy="linear",
        )

    def epoch(self, number: int) -> float:
        """Trains on all texts, of few several times; returns the mean loss of the steps."""
        self._both.train()
        losses = []
        batches = [
            rows
            for _ in range(self._passes)
            for rows in shuffled_batches(
                self._train.num_tokens, self._config.batch_size, self._random
            )
        ]
        bar = tqdm(
            batches, desc=f"epoch {number}", leave=False, disable=not self._progress, unit="batch"
        )
        for rows in bar:
            loss = self._loss(rows)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"epoch {number}: the loss is {loss.item()}. Lower --learning-rate (got "
                    f"{self._config.learning_rate})."
                )
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self._both.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step()
            losses.append(loss.item())
        self._both.eval()
        return float(np.mean(losses))

    def _loss(self, rows: NDArray[np.int64]) -> torch.Tensor:
        targets = torch.from_numpy(self._targets[rows]).to(self._device)
        outputs = self.head(*inputs_of(self._train, rows, self._device))
        background = self._background
        if background is None:
            loss: torch.Tensor = self.loss_of(outputs, targets)
            return loss
        count = min(len(background), max(1, round(len(rows) * BACKGROUND_SHARE)))
        others = self._random.integers(0, len(background), count)
        outside = self.head(*inputs_of(background, others, self._device))
        return self._objective.loss_with_background(self.loss_of, outputs, targets, outside)


def _new_head(train: Features, outputs: int, config: FitConfig) -> Trainable:
    dim = train.dim if isinstance(train, LayerFeatures) else train.spec.dim
    heads = config.attention_heads
    if heads is None or heads < 1 or dim % heads:
        raise TrainingError(f"attention heads: got {heads}, expected a divisor of dim {dim}.")
    pooling, dropout = config.position_pooling, config.dropout
    if isinstance(train, LayerFeatures):
        layers = train.values.shape[1]
        return WeighingHead(layers, dim, outputs, heads, pooling, dropout)
    if isinstance(train, PairFeatures):
        return TwoTextsHead(dim, outputs, heads, pooling, dropout)
    return FoldedTaskHead(dim, outputs, heads, pooling, dropout)


def evaluate(head: TaskHead | Trainable, features: Features) -> NDArray[np.float32]:
    """The torch head's outputs, float32 [texts, outputs]."""
    head.eval()
    output = head.output if isinstance(head, TaskHead) else head.mlp.output
    device = output.weight.device
    order = np.argsort(features.num_tokens, kind="stable")
    size = max(64, BATCH_TOKENS // int(features.num_tokens.max(initial=1)))
    logits = np.empty((len(features), output.out_features), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            logits[rows] = head(*inputs_of(features, rows, device)).cpu().numpy()
    return logits
