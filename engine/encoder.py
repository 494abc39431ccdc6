"""What makes codes of batches, on a CPU or on a GPU: one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.head import Head
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.predictions import Prediction
from bitheads.engine.types import BatchRunner, PlacedBatch, Stats

LoadedHead = TypeVar("LoadedHead", bound=Head)


class Encoder(Protocol[LoadedHead]):
    """What makes codes of token ids, and answers of codes.

    Attributes:
        name: backend and precision, such as "openvino bf16".
        max_batch_tokens: token budget of a call that serves it best.
        call_tokens: what a call costs beside its tokens, in tokens; see `cut_batches`.
    """

    name: str
    max_batch_tokens: int
    call_tokens: int

    def pad_lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """What texts of these lengths are to be padded to at least, int64 [texts]."""

    def encode(self, batches: Iterable[PlacedBatch]) -> Iterator[Stats]:
        """Packs each batch's rows straight to their place in its codes, puts their embeddings in
        theirs; yields each batch's cost.

        The batches are asked for one by one, by the thread that asks for the costs.

        Raises BackendError if the encoder fails.
        """

    def open_runners(self) -> tuple[BatchRunner, list[BatchRunner]]:
        """Runners for those who decide batch by batch what runs when, as a server does.

        Returns the way to run one batch on all cores, and those that run at the same time, on a
        share of the cores each; none if the encoder has no lanes. The one and the others are not
        to be used at once. They raise as `encode`.
        """

    def load_head(self, head: FoldedHead) -> LoadedHead:
        """The head as `predict` wants it. Raises HeadError if it cannot run here."""

    def predict(
        self, features: PackedFeatures, heads: Sequence[LoadedHead]
    ) -> dict[str, Prediction]:
        """See engine.heads.cpu.predict_heads."""

    def text_vectors(
        self, features: PackedFeatures, heads: Sequence[LoadedHead]
    ) -> list[NDArray[np.float32]]:
        """What heads of the form two_texts make of each text, float32 [texts, size] of each.

        Raises as `predict`.
        """

    def pair_outputs(
        self,
        vectors: Sequence[NDArray[np.float32]],
        pairs: NDArray[np.int64],
        heads: Sequence[LoadedHead],
    ) -> list[NDArray[np.float32]]:
        """What those heads make of pairs of vectors, see HeadThreads.pair_outputs."""

    def close(self) -> None:
        """Frees what it holds; once is enough, more does nothing.

        Waits for calls that run; later ones raise ClosedError. In a process that was forked since
        it does nothing, and everything else raises ForkedError there.
        """


@runtime_checkable
class AnsweringEncoder(Encoder[LoadedHead], Protocol[LoadedHead]):
    """An encoder that runs the heads where it runs itself, so that codes stay there."""

    def encode_and_predict(
        self,
        batches: Iterable[PlacedBatch],
        heads: Sequence[LoadedHead],
        logits: Sequence[NDArray[np.float32]],
    ) -> Iterator[Stats]:
        """Fills each head's logits, float32 [texts, classes]; yields each batch's cost.

        Of heads of the form two_texts those are the texts' vectors.
        """
