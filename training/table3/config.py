"""What the grid has and how its parts are trained: the keys of `bitheads table3 --config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bitheads.engine.features.spec import PositionPooling
from bitheads.training.data.tasks import check_quotes
from bitheads.training.errors import ConfigError, require
from bitheads.training.heads.config import FitConfig
from bitheads.training.multitask.config import MultitaskConfig, Precision
from bitheads.training.table3.features.recipe import Recipe


@dataclass(frozen=True)
class StudentConfig:
    """A small encoder per task, distilled from the encoder fine-tuned on it (Section 6.1).

    Attributes:
        encoder: where it starts; None for the grid's encoder.
        layers: how many of its layers are kept, evenly spaced; None for all.
        temperature: of the softmax of both, in the loss that compares them.
        soft: share of that loss; the rest is that of the labels.
    """

    encoder: str | None = None
    layers: int | None = 2
    temperature: float = 2.0
    soft: float = 0.5
    steps: int = 200
    batch_size: int = 16
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    position_pooling: PositionPooling = PositionPooling.CLS

    def __post_init__(self) -> None:
        require("temperature", self.temperature, self.temperature > 0, "a number above 0")
        require("soft", self.soft, 0 <= self.soft <= 1, "0 to 1")
        if self.layers is not None:
            require("layers", self.layers, self.layers >= 1, "at least 1")
        for name in ("steps", "batch_size"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "head_learning_rate"):
            require(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")


@dataclass(frozen=True)
class WsdConfig:
    """The word-sense probe (Section 6.3).

    Attributes:
        task: its folder; the rows have start, end, lemma and pos beside label and text. None for
            no probe.
        layers: hidden states to choose from on dev; none for all.
        max_train_rows: drawn at random; None for all.
    """

    task: str | None = None
    layers: tuple[int, ...] = ()
    max_train_rows: int | None = None


@dataclass(frozen=True)
class Table3Config:
    """A grid, or a part of one. Lists that are empty leave out their methods.

    Attributes:
        tasks: names of folders, the table's columns; none for all in the index's order, but for
            `wsd.task`.
        quotes: task -> "csv" or "none", how its files' quotes are read, see `engine.texts.tables`.
        max_train_rows, max_dev_rows, max_test_rows: rows per task, drawn at random; None for all.
        max_length: tokens that are read of a text; None for the encoder's limit.
        seeds: of the heads that are trained on frozen encoders, one cell each. Encoders are
            trained once, with the first.
        precision: the type that encoders compute features in, `fp32` or `bf16`.
        learning_rates: peaks that are tried for each head; the best on dev is taken.
        mean_layers: how many last layers a `mean` may pool; the best on dev, over all tasks, is
            taken in each method. None for two thirds.
        frozen: recipes for heads on the encoder as it is.
        leave_one_task_out: recipes for heads on encoders trained on all other tasks.
        leave_one_task_out_signs: the same, trained with the sign in the forward pass.
        leave_one_type_out: recipes for heads on encoders trained on all tasks of other types.
        all_tasks: whether to train one encoder on all tasks, and use it as is.
        all_tasks_heads: recipes for new heads on that encoder's features, as an engine serves it.
        single_task: whether to fine-tune the encoder on each task.
        student: whether to distil a student from each of those.
        types: tasks' types whose encoders are trained; none for all.
        matthews, f1: tasks whose Matthews correlation is shown, and task -> the class whose F1 is.
        flops_tokens: length of the text whose cost is counted.
        scratch_gb: features that are kept on disk for further cells.
        keep_encoders: whether trained encoders stay when all cells that read them are done; the
            one for all tasks does.
        head, multitask, signed, finetune, distil, wsd: how each part is trained: `signed` the
            encoders of `leave_one_task_out_signs`, `multitask` the other shared ones. What the
            grid decides, such as encoder, tasks, rows and seed, is not read from there.
    """

    tasks: tuple[str, ...] = ()
    quotes: Mapping[str, str] | None = None
    max_train_rows: int | None = None
    max_dev_rows: int | None = None
    max_test_rows: int | None = None
    max_length: int | None = None
    seeds: tuple[int, ...] = (0,)
    precision: Precision = Precision.FP32
    learning_rates: tuple[float, ...] = (3e-4,)
    mean_layers: tuple[int, ...] = ()
    frozen: tuple[str, ...] = ()
    leave_one_task_out: tuple[str, ...] = ()
    leave_one_task_out_signs: tuple[str, ...] = ()
    leave_one_type_out: tuple[str, ...] = ()
    all_tasks: bool = False
    all_tasks_heads: tuple[str, ...] = ()
    single_task: bool = False
    student: bool = False
    types: tuple[str, ...] = ()
    matthews: tuple[str, ...] = ()
    f1: Mapping[str, str] = field(default_factory=dict)
    flops_tokens: int = 50
    scratch_gb: float = 20.0
    keep_encoders: bool = True
    head: FitConfig = field(default_factory=FitConfig)
    multitask: MultitaskConfig = field(default_factory=MultitaskConfig)
    signed: MultitaskConfig = field(default_factory=MultitaskConfig)
    finetune: MultitaskConfig = field(default_factory=MultitaskConfig)
    distil: StudentConfig = field(default_factory=StudentConfig)
    wsd: WsdConfig = field(default_factory=WsdConfig)

    def __post_init__(self) -> None:
        check_quotes(self.quotes)
        for name in ("max_train_rows", "max_dev_rows", "max_test_rows", "max_length"):
            value = getattr(self, name)
            require(name, value, value is None or value >= 1, "at least 1")
        for rate in self.learning_rates:
            require("learning_rates", rate, rate > 0, "numbers above 0")
        require("learning_rates", self.learning_rates, len(self.learning_rates) > 0, "at least one")
        for count in self.mean_layers:
            require("mean_layers", count, count >= 1, "numbers from 1 on")
        require("seeds", self.seeds, 0 < len(self.seeds) == len(set(self.seeds)), "different ones")
        for name in ("flops_tokens", "scratch_gb"):
            require(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")
        if self.student and not self.single_task:
            raise ConfigError("student: got true, expected single_task = true, too: its teachers.")
        for name in FEATURE_METHODS:
            texts = getattr(self, name)
            recipes = [Recipe.parse(text) for text in texts]
            if repeated := {str(recipe) for recipe in recipes if recipes.count(recipe) > 1}:
                raise ConfigError(f"{name}: got {sorted(repeated)} twice. Remove one.")

    def recipes(self, method: str) -> list[Recipe]:
        """The recipes of `frozen`, `leave_one_task_out`, ..."""
        return [Recipe.parse(text) for text in getattr(self, method)]


FEATURE_METHODS = (
    "frozen",
    "all_tasks_heads",
    "leave_one_task_out",
    "leave_one_task_out_signs",
    "leave_one_type_out",
)
"""The methods that train a head on an encoder's features, in the order they run in."""


def section_of(method: str) -> str:
    """What a table calls a method."""
    return "all tasks, new heads" if method == "all_tasks_heads" else method.replace("_", " ")


def as_json(config: Any) -> dict[str, Any]:
    """A dataclass's values as JSON has them."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return values
