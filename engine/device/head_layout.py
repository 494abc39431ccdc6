"""What goes to the device of heads: their weights in one piece, and their queries in one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import FoldedHead

ALIGNMENT = 256
"""Bytes that the address of each piece is a multiple of."""

ONE_TOKEN_ONLY = 1e30
"""Bias of a token's score where a head reads that token alone."""

END_BIAS = {
    PositionPooling.ATTENTION: (0.0, 0.0),
    PositionPooling.MEAN: (0.0, 0.0),
    PositionPooling.CLS: (ONE_TOKEN_ONLY, 0.0),
    PositionPooling.LAST: (0.0, ONE_TOKEN_ONLY),
}
"""What a text's first and last tokens score more."""


class Arena:
    """Weights on their way to the device, in one piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, content: bytes) -> int:
        """Its offset, a multiple of ALIGNMENT."""
        offset = self._size
        padding = -len(content) % ALIGNMENT
        self._pieces += [content, bytes(padding)]
        self._size += len(content) + padding
        return offset

    def content(self) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(self._pieces), np.uint8)


def matrices(
    head: FoldedHead,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    """A head's weights and biases, stage by stage: one value projection per attention head."""
    if head.query is not None and head.value is not None:
        for value in np.split(head.value, len(head.query)):
            yield value, None
    yield head.dense, head.dense_bias
    yield head.output, head.output_bias


class Columns:
    """The queries of all heads, one below the other.

    Attributes:
        queries: float32 [columns, dim].
        end_bias: float32 [columns, 2].
        first: the first column of each head.
    """

    def __init__(self, heads: Sequence[FoldedHead], dim: int) -> None:
        queries: list[NDArray[np.float32]] = []
        biases: list[tuple[float, float]] = []
        shared: dict[PositionPooling, int] = {}
        self.first = []
        for head in heads:
            pooling = head.position_pooling
            if head.query is not None:
                self.first.append(len(biases))
                queries.append(head.query)
                biases += [END_BIAS[pooling]] * len(head.query)
                continue
            if pooling not in shared:
                # Equal scores are equal weights; a huge one takes all the weight.
                shared[pooling] = len(biases)
                queries.append(np.zeros((1, dim), np.float32))
                biases.append(END_BIAS[pooling])
            self.first.append(shared[pooling])
        self.queries = np.concatenate(queries)
        self.end_bias = np.array(biases, np.float32)
