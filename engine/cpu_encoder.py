"""The encoder on a CPU: a session, lanes beside it, and the native kernels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import round_lengths
from bitheads.engine.errors import BackendError
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.features.pack import pack_layers
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.heads.cpu import CpuHead, HeadThreads, load_head
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.predictions import Prediction
from bitheads.engine.process.lifetime import Lifetime, give_back_memory
from bitheads.engine.sessions import EncoderSession
from bitheads.engine.sessions.lanes import Lanes
from bitheads.engine.types import BatchRunner, PlacedBatch, Stats

CPU_BATCH_TOKENS = 1024
"""Default token budget of an encoder call: past this, larger batches gain nothing on a CPU."""

CPU_CALL_TOKENS = 32
"""Cost of an encoder call beside its tokens, in tokens: 30 to 44 were measured with OpenVINO on
all-MiniLM-L6-v2, where 16 to 48 make no difference to the time of a call on many texts."""

OPEN_LANES_FROM = 16
"""Batches of a call from which on lanes are opened: for fewer, compiling the graph once more takes
longer than lanes save."""


class CpuEncoder:
    """See Encoder: a session's hidden states, packed by the native kernels.

    A single batch runs on a session that has all threads; the batches of larger calls in lanes,
    sessions that run at the same time. Calls from several threads take turns, batch by batch.
    """

    max_batch_tokens = CPU_BATCH_TOKENS
    call_tokens = CPU_CALL_TOKENS

    def __init__(
        self,
        session: EncoderSession,
        spec: FeatureSpec,
        calibration: Calibration | None,
        threads: int | None = None,
        open_lanes: Callable[[], list[EncoderSession]] | None = None,
        round_up_to: int | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        """
        Args:
            threads: number of those that run the heads, None for all cores.
            open_lanes: called once, for the first call of many batches; None: there are none.
            round_up_to: most tokens of a text, for a backend that makes a kernel for every shape:
                lengths are rounded up, so that there are few. None: they stay as they are.
            embedder: makes embeddings of the last layer; None: there are none.
        """
        self.name = f"{session.backend} {session.precision}"
        self._lifetime = Lifetime(f"this encoder ({self.name})")
        self._session = session
        self._spec = spec
        self._calibration = calibration or Calibration()
        self._lock = threading.Lock()
        self._open_lanes = open_lanes
        self._round_up_to = round_up_to
        self._embedder = embedder
        self._lanes: Lanes | None = None
        self._heads = HeadThreads(threads)

    def pad_lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        return lengths if self._round_up_to is None else round_lengths(lengths, self._round_up_to)

    def encode(self, batches: Iterable[PlacedBatch]) -> Iterator[Stats]:
        with self._lifetime:
            batches = iter(batches)
            first = list(islice(batches, OPEN_LANES_FROM))
            lanes = self._find_lanes(len(first))
        batches = chain(first, batches)
        if lanes is not None:
            return lanes.run(self._encode_batch, batches)
        return self._encode_in_turn(batches)

    def _encode_in_turn(self, batches: Iterable[PlacedBatch]) -> Iterator[Stats]:
        for batch in batches:
            with self._lifetime, self._lock:
                stats = self._encode_now(self._session, batch)
            yield stats

    def _find_lanes(self, num_batches: int) -> Lanes | None:
        """The lanes, if there are any; the first call of `OPEN_LANES_FROM` batches opens them."""
        if self._open_lanes is None or num_batches < 2:
            return None
        with self._lock:
            if self._lanes is None and num_batches >= OPEN_LANES_FROM:
                self._lanes = Lanes(self._open_lanes())
            return self._lanes if self._lanes is not None and len(self._lanes) > 1 else None

    def open_runners(self) -> tuple[BatchRunner, list[BatchRunner]]:
        with self._lifetime, self._lock:
            sessions = [] if self._open_lanes is None else self._open_lanes()
        lanes: list[BatchRunner] = [partial(self._encode_batch, s) for s in sessions]
        return partial(self._encode_batch, self._session), lanes if len(lanes) > 1 else []

    def load_head(self, head: FoldedHead) -> CpuHead:
        return load_head(head)

    def predict(self, features: PackedFeatures, heads: Sequence[CpuHead]) -> dict[str, Prediction]:
        with self._lifetime:
            return self._heads.predict(features, heads)

    def text_vectors(
        self, features: PackedFeatures, heads: Sequence[CpuHead]
    ) -> list[NDArray[np.float32]]:
        with self._lifetime:
            return self._heads.text_vectors(features, heads)

    def pair_outputs(
        self,
        vectors: Sequence[NDArray[np.float32]],
        pairs: NDArray[np.int64],
        heads: Sequence[CpuHead],
    ) -> list[NDArray[np.float32]]:
        with self._lifetime:
            return self._heads.pair_outputs(vectors, pairs, heads)

    def close(self) -> None:
        """Waits for batches that run. Runners must not be kept: they hold the session's memory."""
        if not self._lifetime.end():
            return
        if self._lanes is not None:
            self._lanes.close()
        self._heads.close()
        del self._session, self._lanes, self._open_lanes
        give_back_memory()

    def _encode_batch(self, session: EncoderSession, batch: PlacedBatch) -> Stats:
        with self._lifetime:
            return self._encode_now(session, batch)

    def _encode_now(self, session: EncoderSession, batch: PlacedBatch) -> Stats:
        spec, calibration, tokens, codes = self._spec, self._calibration, batch.tokens, batch.codes
        started_s = time.perf_counter()
        try:
            layers = session.run(tokens)
        except Exception as error:  # each backend has its own
            raise BackendError(
                f"{self.name} failed on a batch of {list(tokens.input_ids.shape)} tokens: "
                f"{error}. Try a smaller max_batch_tokens, or another backend."
            ) from error
        encoded_s = time.perf_counter()
        if codes is not None:
            pack_layers(layers, tokens.lengths, batch.token_offsets, codes, spec, calibration)
        if batch.embeddings is not None:
            assert self._embedder is not None, "who asks has looked whether there are embeddings"
            batch.embeddings[batch.texts] = self._embedder(layers[-1], tokens.lengths)
        packed_s = time.perf_counter()
        num_tokens = int(tokens.lengths.sum())
        return Stats(
            num_windows=batch.texts.size,
            num_tokens=num_tokens,
            num_batches=1,
            num_padding=tokens.input_ids.size - num_tokens,
            encode_s=encoded_s - started_s,
            pack_s=packed_s - encoded_s,
        )
