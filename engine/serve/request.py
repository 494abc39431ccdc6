"""A request as the scheduler has it: its texts, what was found of them so far, and its answer."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import words_of_windows
from bitheads.engine.engine import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.features.words import Words
from bitheads.engine.heads.head import Head, is_of_words, predictions_apart, predictions_of
from bitheads.engine.predictions import Prediction
from bitheads.engine.serve.codes_cache import Key
from bitheads.engine.texts.apart import PairsApart
from bitheads.engine.texts.forms import reads_apart
from bitheads.engine.texts.tokenize import Tokens
from bitheads.engine.types import Stats


@dataclass(frozen=True, eq=False)
class Answer:
    """What a request asked for.

    Attributes:
        features: the codes of its texts, if it asked for them.
        embeddings: float32 [texts, dim], if it asked for them, as the checkpoint makes them.
        predictions: by task, of all its texts; empty if it asked for no tasks.
        stats: what it cost. Batches are shared: their whole time counts for each of their requests.
        queue_s: until its first text was taken, in seconds.
    """

    features: PackedFeatures | None
    embeddings: NDArray[np.float32] | None
    predictions: dict[str, Prediction]
    stats: Stats
    queue_s: float


@dataclass(eq=False)
class Request:
    """Tokenized texts of one request, and what it has so far.

    Attributes:
        texts: all that is to be encoded, with their words if a head is of words.
        client: whose it is: clients have equal shares.
        heads: of the tasks it asks for.
        wants_features, wants_embeddings: whether it asks for codes, for embeddings.
        future: of its Answer; cancelling it takes its texts out of the queue.
        apart: where in `texts` what is asked about is, if a head is of the form two_texts.
        keys: of its texts, see engine.serve.codes_cache; the scheduler makes them.
        words: of its texts, if a head is of words.
        are_of_words: which heads are.
        outputs: of each head, float32 [texts, outputs], or [words, outputs]; of one of the form
            two_texts the vectors of the texts of pairs.
    """

    texts: Sequence[Tokens]
    heads: Sequence[Head]
    wants_features: bool
    client: Hashable = None
    wants_embeddings: bool = False
    future: Future[Answer] = field(default_factory=Future)
    apart: PairsApart | None = None
    keys: list[Key] = field(default_factory=list)
    submitted_s: float = 0.0
    queue_s: float | None = None
    waiting: int = 0
    failed: bool = False
    stats: Stats = field(default_factory=Stats)
    offsets: NDArray[np.int64] = field(init=False)
    codes: NDArray[np.uint8] | None = None
    embeddings: NDArray[np.float32] | None = None
    words: Words | None = None
    are_of_words: list[bool] = field(init=False)
    outputs: list[NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        self.offsets = offsets_of([text.ids.size for text in self.texts])
        self.waiting = len(self.texts)
        self.are_of_words = [is_of_words(head) for head in self.heads]
        if any(self.are_of_words):
            joint = self.texts[: self.num_joint]
            assert all(text.is_pair or text.words is not None for text in joint)
            self.words = words_of_windows(joint)
        self.outputs = [
            np.empty((self._num_rows(head), head.num_text_outputs), np.float32)
            for head in self.heads
        ]

    def _num_rows(self, head: Head) -> int:
        if reads_apart(head):
            return len(self.texts) - self.num_joint
        if is_of_words(head):
            return 0 if self.words is None else len(self.words.table)
        return self.num_joint

    @property
    def num_joint(self) -> int:
        """Texts that are encoded as they were asked about; those of pairs come behind."""
        return len(self.texts) if self.apart is None else len(self.apart.joint)

    @property
    def tokens(self) -> int:
        return int(self.offsets[-1])


def make_answer(request: Request, engine: Engine) -> Answer:
    """The answer to a request whose texts all have their results."""
    features = None
    predictions = _predictions(request, engine)
    if request.wants_features:
        codes = request.codes
        if codes is None:
            codes = np.empty((0, engine.spec.code_bytes), np.uint8)
        joint = request.num_joint
        pairs = np.array([text.is_pair for text in request.texts[:joint]], np.bool_)
        offsets = request.offsets[: joint + 1]
        features = PackedFeatures(
            codes[: offsets[-1]], offsets, engine.spec, engine.calibration, pairs=pairs
        )
    embeddings, queue_s = request.embeddings, request.queue_s or 0.0
    return Answer(features, embeddings, predictions, request.stats, queue_s)


def _predictions(request: Request, engine: Engine) -> dict[str, Prediction]:
    apart, outputs = request.apart, dict(zip(request.heads, request.outputs, strict=True))
    if apart is None:
        return predictions_of(request.heads, request.outputs, request.words)
    joint = [head for head in request.heads if not reads_apart(head)]
    of_joint = predictions_of(joint, [outputs[head] for head in joint], request.words)
    of_pairs = [head for head in request.heads if reads_apart(head)]
    vectors = [outputs[head] for head in of_pairs]
    started_s = time.perf_counter()
    answers = engine.encoder.pair_outputs(vectors, apart.pairs, of_pairs)
    request.stats += Stats(heads_s=time.perf_counter() - started_s)
    return predictions_apart(request.heads, apart, of_joint, answers)
