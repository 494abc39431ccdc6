"""Which texts go through the encoder together: those that cost least, within a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.texts.tokenize import Tokens
from bitheads.engine.types import PlacedBatch, Stats, TokenBatch


@dataclass(frozen=True)
class BatchedTexts:
    """Tokenized texts, cut into batches.

    Attributes:
        windows: of all texts, most of which are one.
        window_offsets: int64 [windows + 1], of each window's tokens among all.
        offsets: int64 [texts + 1], of each text's.
        padded: int64 [windows], tokens of each at least, padding included; see `round_lengths`.
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
        lengths: int64 [texts].
        max_length: most tokens the encoder reads.
    """
    steps = np.select([lengths <= 64, lengths <= 128, lengths <= 256], [2, 4, 8], 16)
    return np.asarray(np.minimum(-(-lengths // steps) * steps, np.maximum(lengths, max_length)))


def cut_batches(
    lengths: NDArray[np.int64], max_batch_tokens: int, call_tokens: int
) -> list[NDArray[np.int64]]:
    """Indices of each batch's texts, longest texts first, at the least cost in total.

    A batch costs rows * longest, the tokens that are computed, and `call_tokens`.

    Args:
        lengths: int64 [texts], tokens of each text.
        max_batch_tokens: bound on rows * longest of a batch, padding included. A text longer
            than this makes a batch of its own.
        call_tokens: what an encoder call costs whatever its size, in tokens.

    Raises InputError for a budget below 1.
    """
    if max_batch_tokens < 1:
        raise InputError(f"max_batch_tokens: got {max_batch_tokens}, expected at least 1.")
    if lengths.size == 1:  # what takes least time to answer should
        return [np.zeros(1, np.int64)]
    order = np.argsort(-lengths, kind="stable")
    sizes = _best_sizes(np.maximum(1, lengths[order]), max_batch_tokens, call_tokens)
    batches = []
    start = 0
    while start < order.size:
        batches.append(order[start : start + sizes[start]])
        start += sizes[start]
    return batches


def _best_sizes(
    lengths: NDArray[np.int64], max_batch_tokens: int, call_tokens: int
) -> NDArray[np.int64]:
    """How many texts the batch that starts at each text has, int64 [texts].

    By dynamic programming from the last text on. A batch that starts amid texts of one length and
    has room for more may as well take the text before it: that one costs no more here than with
    the longer texts before. So only batches that start a run of equal lengths have a choice; all
    others are full, or need no looking at. That is one step a text and, for each length there is,
    one a possible row.

    Args:
        lengths: int64 [texts], falling, at least 1.
    """
    num_texts = lengths.size
    # The cost of all texts from this one on; batches past the last text are none.
    cost = np.full(2 * num_texts + 1, np.inf)
    cost[num_texts] = 0
    sizes = np.empty(num_texts, np.int64)
    stop = num_texts
    for start in np.flatnonzero(np.diff(lengths, prepend=0))[::-1]:
        length = int(lengths[start])
        rows = min(max(1, max_batch_tokens // length), num_texts)
        sizes[start:stop] = rows
        for last in range(stop, start + 1, -rows):
            first = max(start + 1, last - rows)
            full = cost[first + rows : last + rows]
            cost[first:last] = call_tokens + rows * length + full
        choices = cost[start + 1 : start + rows + 1] + length * np.arange(1, rows + 1)
        # Of equal choices the largest: fewer calls.
        sizes[start] = rows - np.argmin(choices[::-1])
        cost[start] = call_tokens + choices[sizes[start] - 1]
        stop = start
    return sizes


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
