"""An encoder on the GPU whose hidden states come back to the host: the peer without our kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.device.encoder import MAX_BATCH_TOKENS
from bitheads.engine.device.session import DeviceSession
from bitheads.engine.errors import BackendError
from bitheads.engine.types import TokenBatch


class HostSession:
    """See engine.sessions.EncoderSession: a DeviceSession with copies around it.

    Copies go through page-locked memory, all layers after one encoder call: as good as it gets.
    """

    def __init__(
        self, device: Any, session: DeviceSession, stream: Any, num_layers: int, dim: int
    ) -> None:
        self.backend, self.precision = session.backend, session.precision
        self.max_batch_tokens = tokens = min(MAX_BATCH_TOKENS, session.max_tokens())
        self._device, self._session, self._stream, self._dim = device, session, stream, dim
        self._dtype = np.dtype(session.dtype)
        cuda = device.cuda
        with device.current("allocating the buffers of a benchmark"):
            self._inputs = [cuda.mem_alloc(tokens * 8) for _ in session.inputs]
            self._outputs = [
                cuda.mem_alloc(tokens * dim * self._dtype.itemsize) for _ in range(num_layers)
            ]
            self._ids = cuda.pagelocked_empty((len(session.inputs), tokens), np.int64)
            self._hidden = cuda.pagelocked_empty((num_layers, tokens * dim), self._dtype)
            session.bind([int(a) for a in self._inputs], [int(a) for a in self._outputs])

    def run(self, batch: TokenBatch) -> list[NDArray[Any]]:
        """Hidden states of the layers, each [rows, seq, dim]; valid until the next `run`."""
        rows, seq = batch.input_ids.shape
        most = min(self._session.max_rows(seq), self.max_batch_tokens // max(1, seq))
        if most < 1 or rows * seq > self.max_batch_tokens:
            raise BackendError(
                f"{rows} texts of {seq} tokens: got room for {self.max_batch_tokens} tokens."
            )
        with self._device.current("running the encoder of a benchmark"):
            for first in range(0, rows, most):
                self._enqueue(batch, first, min(first + most, rows), seq)
            self._stream.synchronize()
        used = self._hidden[:, : rows * seq * self._dim]
        return [layer.reshape(rows, seq, self._dim) for layer in used]

    def _enqueue(self, batch: TokenBatch, first: int, last: int, seq: int) -> None:
        cuda, rows = self._device.cuda, last - first
        for name, device, ids in zip(self._session.inputs, self._inputs, self._ids, strict=True):
            # Each piece has its own place in page-locked memory: the last may still be read.
            piece = ids[first * seq : last * seq]
            piece[:] = getattr(batch, name)[first:last].ravel()
            cuda.memcpy_htod_async(device, piece, self._stream)
        self._session.enqueue(rows, seq)
        for device, hidden in zip(self._outputs, self._hidden, strict=True):
            target = hidden[first * seq * self._dim : last * seq * self._dim]
            cuda.memcpy_dtoh_async(target, device, self._stream)

    def close(self) -> None:
        with self._device.current("freeing the buffers of a benchmark"):
            self._stream.synchronize()
            self._session.close()
            for memory in (*self._inputs, *self._outputs):
                memory.free()
            del self._ids, self._hidden
