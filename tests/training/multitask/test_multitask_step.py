"""Steps against the same computed plainly: weights of losses, accumulation, rates, precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitheads.engine.features.spec import LayerPooling, PositionPooling
from bitheads.export.errors import ExportError
from bitheads.export.source.encoder import HiddenStates, load_encoder
from bitheads.training.data.tasks import read_task
from bitheads.training.errors import TrainingError
from bitheads.training.multitask.config import MultitaskConfig, Precision
from bitheads.training.multitask.model import MultitaskModel, straight_through_signs
from bitheads.training.multitask.step import Stepper, evaluate, learning_rate_factor
from bitheads.training.multitask.task_batches import TrainBatches, all_batches, text_tokenizer

CPU = torch.device("cpu")
CONFIG = MultitaskConfig(steps=10, batch_size=4, dropout=0.0, learning_rate=1e-3)
WEIGHTS = {"paraphrase": 0.3, "topics": 0.7}

TinyEncoder = Callable[[str], Path]


class Parts:
    """A model and what it is trained with."""

    def __init__(self, folder: Path, tasks: Path, config: MultitaskConfig) -> None:
        self.config = config
        encoder = load_encoder(str(folder))
        for module in encoder.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        self.tasks = {name: read_task(tasks / name) for name in WEIGHTS}
        classes = {name: len(task.classes) for name, task in self.tasks.items()}
        self.model = MultitaskModel(encoder, classes, config, CPU)
        tokenizer = text_tokenizer(encoder, config.max_length)
        self.batches = {
            name: TrainBatches(task, tokenizer, encoder.pad_id, config.batch_size, config.seed)
            for name, task in self.tasks.items()
        }
        self.dev = {
            name: all_batches(task.dev, tokenizer, encoder.pad_id)
            for name, task in self.tasks.items()
        }
        self.stepper = Stepper(self.model, self.batches, WEIGHTS, config)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.model.parameters().items()}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_step_is_adamw_on_the_weighted_sum(
    family: str, tiny_encoder: TinyEncoder, task_folder: Path
) -> None:
    config = replace(CONFIG, max_gradient_norm=1e9)
    ours, plain = (Parts(tiny_encoder(family), task_folder, config) for _ in range(2))
    assert largest_difference(ours.weights(), plain.weights()) == 0
    plain.model.encoder.model.get_input_embeddings().sparse = False

    losses = ours.stepper.step(1)

    module = HiddenStates(plain.model.encoder, plain.model.layers)
    total = torch.zeros(())
    for task, weight in WEIGHTS.items():
        batch = plain.batches[task][0]
        inputs = [torch.from_numpy(getattr(batch.tokens, name)) for name in module.input_names]
        logits = plain.model.heads[task](module(*inputs)[0], inputs[1].bool())
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.label_ids))
        assert losses[task] == pytest.approx(loss.item(), rel=1e-5)
        total = total + weight * loss
    total.backward()
    ours_moment = {
        name: ours.stepper.optimizer.state[p]["exp_avg"]
        for name, p in ours.model.parameters().items()
    }
    expected = {name: 0.1 * p.grad for name, p in plain.model.parameters().items()}
    assert largest_difference(ours_moment, expected) < 1e-6
    factor = learning_rate_factor(1, config)
    groups = {id(p): g for g in ours.stepper.optimizer.param_groups for p in g["params"]}
    for name, parameter in ours.model.parameters().items():
        group = groups[id(parameter)]
        peak = config.head_learning_rate if name.startswith("head/") else config.learning_rate
        assert group["lr"] == pytest.approx(factor * peak)
        assert group["weight_decay"] == (config.weight_decay if parameter.ndim > 1 else 0)


def test_gradients_are_clipped(tiny_encoder: TinyEncoder, task_folder: Path) -> None:
    parts = Parts(tiny_encoder("bert"), task_folder, replace(CONFIG, max_gradient_norm=0.01))
    parts.stepper.step(1)
    moments = [state["exp_avg"] / 0.1 for state in parts.stepper.optimizer.state.values()]
    norm = torch.linalg.vector_norm(torch.cat([moment.flatten() for moment in moments]))
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_accumulated_batches_equal_a_large_one(
    tiny_encoder: TinyEncoder, task_folder: Path
) -> None:
    """The training set has 8 rows, so that two batches of 4 are what one of 8 is."""
    large = Parts(tiny_encoder("bert"), task_folder, replace(CONFIG, batch_size=8))
    small = Parts(tiny_encoder("bert"), task_folder, replace(CONFIG, accumulation=2))
    tokenizer = text_tokenizer(large.model.encoder, None)
    for parts in (large, small):
        for name in WEIGHTS:
            task = read_task(task_folder / name, max_train_rows=8)
            parts.batches[name] = TrainBatches(
                task, tokenizer, parts.model.encoder.pad_id, parts.config.batch_size, 0
            )
    got, expected = small.stepper.step(1), large.stepper.step(1)
    assert got == pytest.approx(expected, rel=1e-5)
    moments = [
        {n: p.stepper.optimizer.state[w]["exp_avg"] for n, w in p.model.parameters().items()}
        for p in (large, small)
    ]
    assert largest_difference(*moments) < 1e-6


def test_learning_rates_rise_and_fall() -> None:
    config = replace(CONFIG, steps=10, warmup=0.4)
    rates = [learning_rate_factor(number, config) for number in range(1, 11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == pytest.approx([6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])
    assert learning_rate_factor(1, replace(config, warmup=0.0)) == 10 / 11


@pytest.mark.parametrize("pooling", list(PositionPooling))
def test_means_of_layers_and_every_position_pooling(
    pooling: PositionPooling, tiny_encoder: TinyEncoder, task_folder: Path
) -> None:
    config = replace(
        CONFIG, layer_pooling=LayerPooling.MEAN, layers="1-2", position_pooling=pooling
    )
    parts = Parts(tiny_encoder("bert"), task_folder, config)
    before = parts.weights()
    parts.stepper.step(1)
    after = parts.weights()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # The third layer is above those that are read.
    untouched = {name for name in before if ".layer.2." in name}
    assert untouched
    assert not changed & untouched
    if pooling is not PositionPooling.ATTENTION:
        assert changed >= {name for name in before if name.startswith("head/")}


def test_heads_read_signs_and_the_encoder_learns_through_them(
    tiny_encoder: TinyEncoder, task_folder: Path
) -> None:
    features = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    signs = straight_through_signs(features)
    assert signs.tolist() == [-1, -1, 1]
    (signs * torch.tensor([3.0, 4.0, 5.0])).sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [3, 4, 5]

    parts = Parts(tiny_encoder("bert"), task_folder, replace(CONFIG, signs=True))
    before = parts.weights()
    batch = parts.batches["topics"][0].tokens
    module = HiddenStates(parts.model.encoder, parts.model.layers)
    parts.model.train(False)
    with torch.inference_mode():
        inputs = [torch.from_numpy(getattr(batch, name)) for name in module.input_names]
        hidden = torch.where(module(*inputs)[0] > 0, 1.0, -1.0)
        expected = parts.model.heads["topics"](hidden, inputs[1].bool())
        torch.testing.assert_close(parts.model.logits("topics", batch), expected)
    parts.stepper.step(1)
    name = "encoder/embeddings.word_embeddings.weight"
    assert not torch.equal(parts.weights()[name], before[name])


def test_bf16_learns_nearly_the_same(tiny_encoder: TinyEncoder, task_folder: Path) -> None:
    exact, rounded = (
        Parts(tiny_encoder("bert"), task_folder, replace(CONFIG, precision=precision))
        for precision in Precision
    )
    for number in (1, 2, 3):
        expected, got = exact.stepper.step(number), rounded.stepper.step(number)
        assert got == pytest.approx(expected, rel=0.03)
        assert got != expected
    assert {p.dtype for p in rounded.model.parameters().values()} == {torch.float32}


def test_heads_start_alike_whatever_the_other_tasks(
    tiny_encoder: TinyEncoder, task_folder: Path
) -> None:
    encoder = load_encoder(str(tiny_encoder("bert")))
    alone = MultitaskModel(encoder, {"topics": 4}, CONFIG, CPU)
    among = MultitaskModel(encoder, {"paraphrase": 2, "topics": 4}, CONFIG, CPU)
    one, other = (model.heads["topics"].state_dict() for model in (alone, among))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_evaluation(tiny_encoder: TinyEncoder, task_folder: Path) -> None:
    """The padded batches compute what every text on its own does."""
    parts = Parts(tiny_encoder("bert"), task_folder, CONFIG)
    tokenizer = text_tokenizer(parts.model.encoder, None)
    got = evaluate(parts.model, parts.dev, CONFIG)
    for name, task in parts.tasks.items():
        batches = [
            all_batches(
                replace(task.dev, texts=[text], label_ids=task.dev.label_ids[i : i + 1]),
                tokenizer,
                0,
            )[0]
            for i, text in enumerate(task.dev.texts)
        ]
        with torch.inference_mode():
            right = [
                parts.model.logits(name, batch.tokens).argmax().item() == batch.label_ids[0]
                for batch in batches
            ]
        assert got[name]["accuracy"] == pytest.approx(np.mean(right))


def test_a_loss_that_is_not_finite_changes_nothing(
    tiny_encoder: TinyEncoder, task_folder: Path
) -> None:
    parts = Parts(tiny_encoder("bert"), task_folder, CONFIG)
    with torch.no_grad():
        parts.model.heads["topics"].output.bias[1] = torch.nan
    before = parts.weights()
    with pytest.raises(TrainingError, match="step 7, task topics: the loss is nan"):
        parts.stepper.step(7)
    after = parts.weights()
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)


@pytest.mark.parametrize("where", ["task topics", "encoder"])
def test_a_gradient_that_is_not_finite(
    where: str, tiny_encoder: TinyEncoder, task_folder: Path
) -> None:
    parts = Parts(tiny_encoder("bert"), task_folder, CONFIG)
    parameters = (
        parts.model.heads["topics"].parameters()
        if where == "task topics"
        else parts.model.encoder.model.parameters()
    )
    next(parameters).register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match=f"step 2, {where}: a gradient is not finite"):
        parts.stepper.step(2)


def test_what_the_encoder_does_not_allow(tiny_encoder: TinyEncoder, task_folder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder("bert")))
    with pytest.raises(TrainingError, match="attention_heads: got 7, expected a divisor of dim 64"):
        MultitaskModel(encoder, {}, replace(CONFIG, attention_heads=7), CPU)
    mean = replace(CONFIG, layer_pooling=LayerPooling.MEAN, layers="9")
    with pytest.raises(ExportError, match="got '9'"):
        MultitaskModel(encoder, {}, mean, CPU)
    with pytest.raises(TrainingError, match="max_length: got 65, expected 5 to 64"):
        text_tokenizer(encoder, 65)
