"""The protocol of a session on a GPU, as engine.sessions.EncoderSession is of one on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class DeviceSession(Protocol):
    """A loaded encoder whose inputs and outputs are device memory.

    Attributes:
        backend, precision: see engine.sessions.EncoderSession.
        inputs: names of its inputs, fields of TokenBatch, each int64 [rows, seq].
        dtype: "float16" or "float32", of its outputs, each [rows, seq, dim].
        capturable: whether `enqueue` can be recorded into a CUDA graph.
    """

    backend: str
    precision: str
    inputs: tuple[str, ...]
    dtype: str
    capturable: bool

    def max_tokens(self) -> int:
        """The largest rows * seq of a call."""

    def max_seq(self) -> int:
        """The longest text of a call."""

    def max_rows(self, seq: int) -> int:
        """Most rows of a call of this sequence length, 0 if none is possible."""

    def bind(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Sets the addresses that all calls use; a session has one stream from the start."""

    def enqueue(self, rows: int, seq: int, keep: bool = False) -> None:
        """Enqueues one call. `keep` gives this shape state of its own, which a graph needs."""

    def forget(self, rows: int, seq: int) -> None:
        """Frees what `keep` kept."""

    def close(self) -> None:
        """Frees everything."""
