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
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.3
    batch_size: int = 64
    epochs: int = 6
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "patience"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "seed"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("learning_rate", self.learning_rate, self.learning_rate > 0, "a number above 0")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1")


FIT_OF_WORDS = FitConfig(
    position_pooling=PositionPooling.MEAN,
    learning_rate=1e-3,
    batch_size=64,
    epochs=30,
    patience=8,
)
"""How heads of words are trained, of which each is a token or two."""


@dataclass(frozen=True)
class HeadSettings:
    """What is trained of labelled texts, wherever they are.

    Attributes:
        task: its name.
        learning_rates: peaks to try; the one with the best dev score is kept. None for that of the
            FitConfig.
        dtype: of the weights in the file, "float32" or "float16".
        decision: how its decision is chosen.
        form: of pairs, "pair" or "two_texts"; None for the better on dev.
        reject: whether the head has a reject output; one of the kind `token_label` has none.
    """

    task: str
    learning_rates: tuple[float, ...] = ()
    dtype: str = "float32"
    decision: DecisionOptions = DEFAULT_OPTIONS
    reject: bool = True
    form: str | None = None


@dataclass(frozen=True)
class HeadConfig:
    """A head of files: where it comes from and where it goes.

    Attributes:
        train, dev, test: files, see training.data.labelled_texts; dev decides when to stop, or,
            without it, parts of the training texts that are held back in turn; test is measured
            once at the end.
        quotes: "csv" or "none", how quotes in the files are read, see `engine.texts.tables`.
        output: the head file; with `force` it may exist.
        kind: of the head; None for what the columns say: `label`, `labels`, `score` or `spans`.
        background: files of texts that are none of its business; none for those that come with the
            project.
        task and all else: see HeadSettings.
    """

    task: str
    train: Path
    dev: Path | None
    output: Path
    test: Path | None = None
    learning_rates: tuple[float, ...] = ()
    dtype: str = "float32"
    force: bool = False
    quotes: str | None = None
    kind: str | None = None
    decision: DecisionOptions = DEFAULT_OPTIONS
    background: tuple[Path, ...] = ()
    reject: bool = True
    form: str | None = None

    @property
    def settings(self) -> HeadSettings:
        """What does not depend on files."""
        return HeadSettings(
            self.task, self.learning_rates, self.dtype, self.decision, self.reject, self.form
        )
