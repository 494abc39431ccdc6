"""A request as the scheduler has it: its texts, what was found of them so far, and its answer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.engine import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.head import Head, empty_outputs, predictions_of
from bitheads.engine.predictions import Prediction
from bitheads.engine.texts.tokenize import Tokens
from bitheads.engine.types import Stats


@dataclass(frozen=True, eq=False)
class Answer:
    """What a request asked for.

    Attributes:
        features: the codes of its texts, if it asked for them.
        predictions: by task, of all its texts; empty if it asked for no tasks.
        stats: what it cost. Batches are shared: their whole time counts for each of their requests.
        queue_s: until its first text was taken, in seconds.
    """

    features: PackedFeatures | None
    predictions: dict[str, Prediction]
    stats: Stats
    queue_s: float


@dataclass(eq=False)
class Request:
    """Tokenized texts of one request, and what it has so far.

    Attributes:
        client: whose it is: clients have equal shares.
        heads: of the tasks it asks for.
        wants_features: whether it asks for codes.
        future: of its Answer; cancelling it takes its texts out of the queue.
    """

    texts: Sequence[Tokens]
    heads: Sequence[Head]
    wants_features: bool
    client: Hashable = None
    future: Future[Answer] = field(default_factory=Future)
    submitted_s: float = 0.0
    queue_s: float | None = None
    waiting: int = 0
    failed: bool = False
    stats: Stats = field(default_factory=Stats)
    offsets: NDArray[np.int64] = field(init=False)
    codes: NDArray[np.uint8] | None = None
    outputs: list[NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        self.offsets = np.zeros(len(self.texts) + 1, np.int64)
        np.cumsum([text.ids.size for text in self.texts], out=self.offsets[1:])
        self.waiting = len(self.texts)
        self.outputs = empty_outputs(self.heads, len(self.texts))

    @property
    def tokens(self) -> int:
        return int(self.offsets[-1])


def make_answer(request: Request, engine: Engine) -> Answer:
    """The answer to a request whose texts all have their results."""
    features = None
    if request.wants_features:
        codes = request.codes
        if codes is None:
            codes = np.empty((0, engine.spec.code_bytes), np.uint8)
        pairs = np.array([text.is_pair for text in request.texts], np.bool_)
        features = PackedFeatures(
            codes, request.offsets, engine.spec, engine.calibration, pairs=pairs
        )
    predictions = predictions_of(request.heads, request.outputs)
    return Answer(features, predictions, request.stats, request.queue_s or 0.0)
