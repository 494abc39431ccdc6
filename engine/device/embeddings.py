"""Embeddings on a GPU: the last hidden states are pooled there, and what follows is the CPU's.

A text's states stay where they are; only its pooled states come back, a few KB. What is done with
them then is done on the processor, as everywhere, so that a vector is the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.device.code import DeviceCode
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.types import PlacedBatch

MAX_POOLED_ROWS = 4096
"""Texts of a call that is to give embeddings: with four tokens each they fill the largest one, and
their pooled states take 16 MB at 1,024 features."""


class DeviceEmbedder:
    """A bundle's embeddings on one stream. `enqueue` wants a current context."""

    def __init__(
        self, embedder: Embedder, dim: int, dtype: str, cuda: Any, code: DeviceCode, stream: Any
    ) -> None:
        """Args:
        dim: of a hidden state.
        dtype: "float16" or "float32", of hidden states.
        """
        self._embedder = embedder
        self._dim, self._dtype = dim, dtype
        self._cuda, self._code, self._stream = cuda, code, stream
        self._width = dim * len(embedder.spec.pooling)
        self._pooled = 0

    @staticmethod
    def max_rows(tokens: int) -> int:
        """Most texts of a call, where calls have so many tokens."""
        return min(tokens, MAX_POOLED_ROWS)

    def num_bytes(self, tokens: int) -> int:
        """What it wants on the device, for calls of so many tokens."""
        return self.max_rows(tokens) * self._width * 4

    def bind(self, address: int) -> None:
        """Sets where those bytes are."""
        self._pooled = address

    def num_floats(self, rows: int) -> int:
        """Of so many texts' pooled states."""
        return rows * self._width

    def enqueue(
        self,
        states: int,
        seq: int,
        lengths: int,
        host_lengths: NDArray[np.int64],
        pooled: NDArray[np.float32],
    ) -> None:
        """Enqueues a launch for each pooling, and the copy of what they find.

        Args:
            states: address of the last hidden states, [rows, seq, dim].
            lengths: address of int64 [rows], tokens of each text.
            host_lengths: the same, here.
            pooled: at its front float32 [num_floats(rows)], page-locked.
        """
        rows = len(host_lengths)
        for i, pooling in enumerate(self._embedder.spec.pooling):
            launch = _kernels.plan_pool_positions(
                states,
                self._dtype,
                rows,
                seq,
                self._dim,
                host_lengths,
                lengths,
                pooling,
                self._pooled + 4 * self._dim * i,
                self._width,
            )
            self._code.launch(launch, self._stream)
        self._cuda.memcpy_dtoh_async(pooled[: self.num_floats(rows)], self._pooled, self._stream)

    def finish(self, pooled: NDArray[np.float32], batch: PlacedBatch) -> None:
        """Puts what `enqueue` brought back into the batch's embeddings."""
        assert batch.embeddings is not None, "they were asked for"
        rows = batch.texts.size
        table = pooled[: self.num_floats(rows)].reshape(rows, self._width)
        batch.embeddings[batch.texts] = self._embedder.of_pooled(table)
