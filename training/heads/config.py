"""How a head is trained, and where it comes from and goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitheads.engine.features.spec import PositionPooling
from bitheads.training.errors import require
from bitheads.training.heads.decision_options import DEFAULT_OPTIONS, DecisionOptions


@dataclass(frozen=True)
class FitConfig:
    """How a head is trained.

    Attributes:
        learning_rate: its peak; it rises for a twentieth of the steps, then falls linearly. Adam's
            first beta goes the other way, from 0.95 to 0.85 and back (torch's one-cycle schedule).
        patience: epochs without a better dev score before training stops.
        attention_heads: None for as many as the encoder has; `fit` needs a number.
    """

    position_pooling: PositionPooling = PositionPooling.ATTENTION
    attention_heads: int | None = None
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    dropout: float = 0.3
    batch_size: int = 32
    epochs: int = 20
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "patience"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "seed"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("learning_rate", self.learning_rate, self.learning_rate > 0, "a number above 0")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1")


@dataclass(frozen=True)
class HeadConfig:
    """Where a head comes from and where it goes.

    Attributes:
        task: its name.
        train, dev, test: files, see training.data.labelled_texts; dev decides when to stop, test is
            measured once at the end.
        quotes: "csv" or "none", how quotes in the files are read, see `engine.texts.tables`.
        output: the head file; with `force` it may exist.
        learning_rates: peaks to try; the one with the best dev score is kept.
        dtype: of the weights in the file, "float32" or "float16".
        kind: of the head; None for what the columns say: `label`, `labels` or `score`.
        decision: how its decision is chosen.
        background: files of texts that are none of its business; none for those that come with the
            project. With `reject` false the head has no reject output.
    """

    task: str
    train: Path
    dev: Path
    output: Path
    test: Path | None = None
    learning_rates: tuple[float, ...] = (3e-4,)
    dtype: str = "float32"
    force: bool = False
    quotes: str | None = None
    kind: str | None = None
    decision: DecisionOptions = DEFAULT_OPTIONS
    background: tuple[Path, ...] = ()
    reject: bool = True
