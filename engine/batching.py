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
from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.features.words import END, START, TOKEN, Table, Words
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
        texts: int64 [texts], which of its call's texts they are.
        pairs: bool [texts], which texts are pairs.
        stats: what tokenizing cost.
        has_words: whether the words of single texts were asked for.
    """

    windows: list[Tokens]
    window_offsets: NDArray[np.int64]
    offsets: NDArray[np.int64]
    padded: NDArray[np.int64]
    rows: list[NDArray[np.int64]]
    texts: NDArray[np.int64]
    pairs: NDArray[np.bool_]
    pad_id: int
    stats: Stats
    has_words: bool = False

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Of which texts tokens were dropped, bool [texts]."""
        found = np.zeros(len(self.pairs), np.bool_)
        text = -1
        for window in self.windows:
            text += not window.continues
            found[text] |= window.truncated
        return found

    def words(self) -> Words | None:
        """Those of all texts; None if nobody asked."""
        return words_of_windows(self.windows) if self.has_words else None

    @property
    def is_split(self) -> bool:
        """Whether a text is several windows."""
        return len(self.windows) > len(self.texts)

    def batches(
        self,
        codes: NDArray[np.uint8] | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Iterator[PlacedBatch]:
        """The batches, padded one at a time, as the encoder asks for them.

        Args:
            codes: of these texts, uint8 [tokens, code_bytes]; None: they are not asked for.
            embeddings: of the texts of their call, of which none is split, float32 [texts, dim];
                None: they are not asked for.
        """
        for rows in self.rows:
            seq = int(self.padded[rows].max())
            batch = pad_batch([self.windows[i] for i in rows], self.pad_id, seq)
            texts = rows if self.is_split else self.texts[rows]
            yield PlacedBatch(batch, texts, self.window_offsets[rows], codes, embeddings)


def words_of_windows(windows: Sequence[Tokens]) -> Words:
    """The words of texts, of their windows; none of a text of which nobody asked for them."""
    tables: list[Table] = []  # of texts
    ends: list[int] = []  # of the texts' windows so far, in tokens
    is_truncated: list[bool] = []
    for window in windows:
        table = np.empty((0, 4), np.int32) if window.words is None else window.words
        if not window.continues:
            tables.append(table)
            ends.append(window.ids.size)
            is_truncated.append(window.truncated)
            continue
        before = tables[-1]
        # A word that both windows have tokens of is read where it begins.
        is_new = table[:, START] > (before[-1, START] if len(before) else -1)
        found = table[is_new]
        found[:, TOKEN] += ends[-1]
        tables[-1] = np.concatenate([before, found])
        ends[-1] += window.ids.size
        is_truncated[-1] |= window.truncated
    all_words = np.concatenate(tables) if tables else np.empty((0, 4), np.int32)
    offsets = offsets_of([len(table) for table in tables])
    ends_of_words = np.append(0, all_words[:, END])  # behind the zero, those of the words before
    read_to = np.where(np.diff(offsets) > 0, ends_of_words[offsets[1:]], 0)
    return Words(
        all_words,
        offsets,
        np.where(np.array(is_truncated, np.bool_), read_to, -1),
        np.array([not window.is_pair for window in windows if not window.continues], np.bool_),
    )


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
