"""Which heads are trained, on what, and what is measured beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bitheads.engine.features.spec import PositionPooling
from bitheads.training.data.columns import check_kind
from bitheads.training.errors import require
from bitheads.training.heads.config import FitConfig
from bitheads.training.heads.decision_options import DecisionOptions


@dataclass(frozen=True)
class TaskConfig:
    """How one task's head is trained: what of `bitheads train-head` differs from its defaults.

    Attributes:
        kind: of the head; None for what the columns say.
        quotes: "csv" or "none", how quotes in its files are read.
        reject: whether it has a reject output.
        form: of pairs, "pair" or "two_texts"; None for the better on dev.
        dtype: of the weights in the file, "float32" or "float16".
        learning_rates: peaks to try.
        balanced to value_range: see DecisionOptions.
        position_pooling to seed: see FitConfig; None for what is best for the kind.
    """

    kind: str | None = None
    quotes: str | None = None
    reject: bool = True
    form: str | None = None
    dtype: str = "float32"
    learning_rates: tuple[float, ...] = ()
    balanced: bool = False
    min_precision: float | None = None
    min_recall: float | None = None
    abstain_below: float | None = None
    keep: float = 0.99
    order: tuple[str, ...] | None = None
    value_range: tuple[float, ...] | None = None
    position_pooling: PositionPooling | None = None
    attention_heads: int | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    patience: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_kind(self.kind)
        require("dtype", self.dtype, self.dtype in ("float32", "float16"), "float32 or float16")
        require("quotes", self.quotes, self.quotes in (None, "csv", "none"), "csv or none")
        FitConfig(**self.fit_changes)  # its checks
        self.decision  # and its own  # noqa: B018

    @property
    def decision(self) -> DecisionOptions:
        """How its decision is chosen."""
        said = {name.name: getattr(self, name.name) for name in fields(DecisionOptions)}
        if self.value_range is not None:
            two = len(self.value_range) == 2
            require("value_range", self.value_range, two, "the least and the largest value")
        return DecisionOptions(**said)

    @property
    def fit_changes(self) -> dict[str, Any]:
        """What of a FitConfig is said."""
        own = {name.name for name in fields(self)}
        names = [name.name for name in fields(FitConfig) if name.name in own]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class ManyConfig:
    """All heads of a folder.

    Attributes:
        tasks: names of folders; none for all.
        exclude_tasks: left out of them.
        settings: task -> how its head is trained, where that is not `usual`.
        background: files of texts that are none of the heads' business; none for those that come
            with the project.
        learning_curve: whether heads are trained on parts of the examples, too.
        fine_tune: whether an encoder is fine-tuned for each task, too.
        fine_tune_epochs: over its training rows.
    """

    tasks: tuple[str, ...] = ()
    exclude_tasks: tuple[str, ...] = ()
    usual: TaskConfig = field(default_factory=TaskConfig)
    settings: Mapping[str, TaskConfig] = field(default_factory=dict)
    background: tuple[Path, ...] = ()
    learning_curve: bool = False
    fine_tune: bool = False
    fine_tune_epochs: int = 3

    def of_task(self, task: str) -> TaskConfig:
        return self.settings.get(task, self.usual)
