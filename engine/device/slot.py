"""What a batch in flight has to itself, while the stages' buffers are those of all batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.device.heads import HeadGroup
from bitheads.engine.types import PlacedBatch, Stats


class Slot:
    """Page-locked memory and events of one batch in flight.

    Attributes:
        inputs: int64 [inputs, tokens], each a [rows, seq] batch at its front.
        rows: int64 [2 * tokens + 1], the rows' lengths, then their offsets and the end.
        codes: uint8 [tokens, code_bytes], row after row.
        logits: float32 [rows * classes].
        pooled: float32 [rows * width], of the texts' embeddings.
        batch, group, num_positions: what is in flight.
        offsets: int64 [rows + 1], of its rows in `codes`.
    """

    def __init__(self, cuda: Any, tokens: int, inputs: int, code_bytes: int) -> None:
        self._cuda = cuda
        self.inputs = cuda.pagelocked_empty((inputs, tokens), np.int64)
        self.rows = cuda.pagelocked_empty(2 * tokens + 1, np.int64)
        self.codes = cuda.pagelocked_empty((tokens, code_bytes), np.uint8)
        self.logits = np.empty(0, np.float32)
        self.pooled = np.empty(0, np.float32)
        self.started, self.encoded, self.packed, self.done = (cuda.Event() for _ in range(4))
        self.batch: PlacedBatch
        self.num_positions = 0
        self.group: HeadGroup
        self.offsets: NDArray[np.int64]

    def fill(self, batch: PlacedBatch, inputs: Sequence[str], rows: int, seq: int) -> None:
        """Copies the batch, padded to [rows, seq] with zeros: masked tokens and empty rows."""
        num_rows, num_seq = batch.tokens.input_ids.shape
        for name, flat in zip(inputs, self.inputs, strict=True):
            padded = flat[: rows * seq].reshape(rows, seq)
            padded[:num_rows, :num_seq] = getattr(batch.tokens, name)
            padded[num_rows:] = 0
            padded[:, num_seq:] = 0
        self.batch = batch
        self.num_positions = rows * seq
        lengths, offsets = self.rows[:rows], self.rows[rows : 2 * rows + 1]
        lengths[:num_rows] = batch.tokens.lengths
        lengths[num_rows:] = 0
        offsets[0] = 0
        np.cumsum(lengths, out=offsets[1:])
        self.offsets = offsets[: num_rows + 1].copy()

    def reserve_logits(self, size: int) -> None:
        if self.logits.size < size:
            self.logits = self._cuda.pagelocked_empty(size, np.float32)

    def reserve_pooled(self, size: int) -> None:
        if self.pooled.size < size:
            self.pooled = self._cuda.pagelocked_empty(size, np.float32)

    def stats(self) -> Stats:
        """Times are the device's. A graph's packing counts as encoding, pooling as packing."""
        num_tokens = int(self.offsets[-1])
        return Stats(
            num_windows=self.batch.texts.size,
            num_tokens=num_tokens,
            num_batches=1,
            num_padding=self.num_positions - num_tokens,
            encode_s=1e-3 * self.encoded.time_since(self.started),
            pack_s=1e-3 * self.packed.time_since(self.encoded),
            heads_s=1e-3 * self.done.time_since(self.packed),
        )
