"""Which texts go through the encoder together: those that cost least, within a token budget.

How texts are cut into batches is computed by a kernel, which the C++ host calls, too:
kernels/SPEC.md, Batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.errors import InputError
from bitheads.engine.texts.tokenize import Tokens
from bitheads.engine.types import PlacedBatch, Stats, TokenBatch


@dataclass(frozen=True)
class BatchedTexts:
    """Tokenized texts, cut into batches.

    Attributes:
        windows: the windows of all texts; most texts are one window.
        window_offsets: int64 [windows + 1], where each window's tokens begin among all tokens.
        offsets: int64 [texts + 1], where each text's tokens begin.
        padded: int64 [windows], the least length of each, padding included; see `round_lengths`.
        rows: the windows of each batch.
        pairs: bool [texts], which texts are pairs.
        stats: what tokenizing cost.
    """

    windows: list[Tokens]
    window_offsets: NDArray[np.int64]
    offsets: NDArray[np.int64]
    padded: NDArray[np.int64]
    rows: list[NDArray[np.int64]]
    pairs: NDArray[np.bool_]
    pad_id: int
    stats: Stats

    def batches(self) -> Iterator[PlacedBatch]:
        """The batches, padded one at a time, as the encoder asks for them."""
        for rows in self.rows:
            seq = int(self.padded[rows].max())
            batch = pad_batch([self.windows[i] for i in rows], self.pad_id, seq)
            yield PlacedBatch(batch, rows, self.window_offsets[rows])


def round_lengths(lengths: NDArray[np.int64], max_length: int) -> NDArray[np.int64]:
    """The lengths that texts are padded to where a backend makes a kernel for every shape.

    Up to the next even number, above 64 tokens to the next multiple of 4, above 128 of 8, above 256
    of 16: 80 lengths up to 512, for 1% more padding.

    Args:
        lengths: int64 [texts], 0 to 2^31 - 1.
        max_length: the most tokens that the encoder reads.

    Raises ValueError for lengths that no text has.
    """
    rounded = np.empty(lengths.size, np.int64)
    _kernels.round_lengths(np.ascontiguousarray(lengths, np.int64), max_length, rounded)
    return rounded


def cut_batches(
    lengths: NDArray[np.int64], max_batch_tokens: int, call_tokens: int
) -> list[NDArray[np.int64]]:
    """Indices of each batch's texts, longest texts first, at the least cost in total.

    A batch costs rows * longest, the tokens that are computed, and `call_tokens`.

    Args:
        lengths: int64 [texts], tokens of each text, 0 to 2^31 - 1.
        max_batch_tokens: bound on rows * longest of a batch, padding included. A text longer
            than this makes a batch of its own.
        call_tokens: what an encoder call costs whatever its size, in tokens.

    Raises InputError for a budget below 1, ValueError for lengths that no text has.
    """
    if max_batch_tokens < 1:
        raise InputError(f"max_batch_tokens: got {max_batch_tokens}, expected at least 1.")
    if lengths.size == 1:  # what takes least time to answer should
        return [np.zeros(1, np.int64)]
    order = np.empty(lengths.size, np.int64)
    offsets = np.empty(lengths.size + 1, np.int64)
    num_batches = _kernels.cut_batches(
        np.ascontiguousarray(lengths, np.int64),
        min(max_batch_tokens, np.iinfo(np.int64).max),
        call_tokens,
        order,
        offsets,
    )
    return [order[first:last] for first, last in pairwise(offsets[: num_batches + 1].tolist())]


def pad_batch(tokens: Sequence[Tokens], pad_id: int, seq: int = 0) -> TokenBatch:
    """One padded batch, padding on the right, as long as its longest text, or as `seq`."""
    lengths = [text.ids.size for text in tokens]
    shape = (len(tokens), max([seq, *lengths]))
    input_ids = np.full(shape, pad_id, np.int64)
    token_type_ids = np.zeros(shape, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    for row, (text, length) in enumerate(zip(tokens, lengths, strict=True)):
        input_ids[row, :length] = text.ids
        token_type_ids[row, text.num_first : length] = 1
        attention_mask[row, :length] = 1
    return TokenBatch(input_ids, attention_mask, token_type_ids, np.array(lengths, np.int64))
