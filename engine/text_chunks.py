"""Large calls in chunks: while the encoder has one, the next is tokenized by another thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import BatchedTexts
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of, ranges
from bitheads.engine.features.words import Words
from bitheads.engine.texts.distinct import DistinctTexts
from bitheads.engine.types import Stats

AnyType = TypeVar("AnyType", bound=np.generic)

LEAST_TEXTS = 256
"""Texts of a call from which on it may have chunks: below, no time is taken to look for them."""

CHARS_PER_BATCH_TOKEN = 128
"""Characters of a chunk for each token of the encoder's budget: some 25 batches. Cut by chunks,
batches have at most 1% more tokens, padding included, than cut by the whole call."""

PART_CHARS = 1 << 24
"""Characters among which texts are sorted by length. Codes are put in order part by part, so that a
large call's memory is that of its codes and one part's."""


def cut_chunks(texts: Sequence[tuple[str, ...]], max_batch_tokens: int) -> list[NDArray[np.int64]]:
    """The texts of each chunk of a call, by their indices; `host/src/chunks.cpp` has the same rule.

    Texts of like length are to be in one chunk, or batches would have much padding; and characters
    are known before tokens are. So the texts of a part are taken by characters, longest first.

    A part is the texts whose first character is among the same PART_CHARS of the call's, and a
    chunk those whose first one is among the same `CHARS_PER_BATCH_TOKEN * max_batch_tokens` of
    their part's, PART_CHARS at most, in that order. A call of no more than one chunk keeps its own
    order.
    """
    chars = np.fromiter((sum(map(len, text)) for text in texts), np.int64, len(texts))
    chunk_chars = min(CHARS_PER_BATCH_TOKEN * max(1, max_batch_tokens), PART_CHARS)
    if int(chars.sum()) <= chunk_chars:
        return [np.arange(len(texts))]
    chunks = []
    for part in _runs(chars, PART_CHARS):
        order = part[np.argsort(-chars[part], kind="stable")]
        chunks += [order[run] for run in _runs(chars[order], chunk_chars)]
    return chunks


def _runs(sizes: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Indices of items whose beginnings lie in the same stretch of `most`, run by run."""
    stretch = (np.cumsum(sizes) - sizes) // most
    return np.split(np.arange(sizes.size), np.flatnonzero(np.diff(stretch)) + 1)


class TextChunks:
    """The texts of a call, each of them once, tokenized chunk by chunk.

    Attributes:
        places: int64 [texts], which of the different ones each text of the call is; None if no two
            are equal.
        num_distinct: how many there are of those.
        num_windows: rows of the encoder calls, of all chunks.
        stats: what tokenizing cost, of the chunks so far, and of how many of the call's texts.
    """

    def __init__(
        self,
        works: Iterator[BatchedTexts],
        pairs: NDArray[np.bool_],
        num_windows: int,
        distinct: DistinctTexts,
    ) -> None:
        """Of different texts.

        Args:
            works: the chunks in order, made when they are asked for.
            pairs: bool [different texts], which are pairs.
            num_windows: see above.
            distinct: where the call's texts are among them.
        """
        self._works = works
        self._times = distinct.times
        self._pairs = pairs
        self._truncated = np.zeros(len(pairs), np.bool_)
        self.places = distinct.places
        self.num_distinct = len(pairs)
        self.num_windows = num_windows
        self.stats = Stats()

    @classmethod
    def whole(cls, work: BatchedTexts, distinct: DistinctTexts) -> TextChunks:
        """A call of one chunk."""
        return cls(iter([work]), work.pairs, len(work.windows), distinct)

    @property
    def is_split(self) -> bool:
        """Whether a text is several windows."""
        return self.num_windows > self.num_distinct

    @property
    def pairs(self) -> NDArray[np.bool_]:
        """Which of the call's texts are pairs, bool [texts]."""
        return self.of_call(self._pairs)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Of which of the call's texts tokens were dropped, of the chunks so far; bool [texts]."""
        return self.of_call(self._truncated)

    def of_call(self, rows: NDArray[AnyType]) -> NDArray[AnyType]:
        """What is known of each different text, for each text of the call."""
        return rows if self.places is None else rows[self.places]

    def __iter__(self) -> Iterator[BatchedTexts]:
        """Once only."""
        for work in self._works:
            times, stats = self._times[work.texts], work.stats
            if stats.num_truncated:
                truncated = work.truncated
                self._truncated[work.texts] = truncated
                stats = replace(stats, num_truncated=int(times[truncated].sum()))
            self.stats += replace(stats, num_texts=int(times.sum()))
            yield work


def in_order(
    parts: list[tuple[NDArray[np.int64], PackedFeatures]],
    places: NDArray[np.int64] | None = None,
) -> PackedFeatures:
    """The features of a call, of those of its chunks.

    Args:
        parts: of each chunk, which of the call's different texts it has, and their features. The
            list is emptied: a chunk's codes are let go of when they were copied.
        places: see TextChunks.
    """
    if len(parts) == 1:
        features = parts.pop()[1]
        return features if places is None else features[places]
    rows_of_texts = np.argsort(np.concatenate([chosen for chosen, _ in parts]))
    back = rows_of_texts if places is None else rows_of_texts[places]
    first = parts[0][1]
    lengths = np.concatenate([part.num_tokens for _, part in parts])[back]
    offsets = offsets_of(lengths)
    pairs = np.concatenate([part.pairs for _, part in parts if part.pairs is not None])[back]
    words = [part.words for _, part in parts if part.words is not None]
    codes = np.empty((int(offsets[-1]), first.spec.code_bytes), np.uint8)
    # The call's texts in the order of the parts, which are copied one after the other.
    texts = np.argsort(back, kind="stable")
    sorted_rows = back[texts]
    parts.reverse()
    begin = 0
    while parts:
        chosen, part = parts.pop()
        first_text, last_text = np.searchsorted(sorted_rows, [begin, begin + len(chosen)])
        own = texts[first_text:last_text]
        rows, _ = ranges(offsets[own], lengths[own])
        if places is None:
            codes[rows] = part.codes
        else:
            from_rows, _ = ranges(
                part.offsets[sorted_rows[first_text:last_text] - begin], lengths[own]
            )
            codes[rows] = part.codes[from_rows]
        begin += len(chosen)
        del part
    return PackedFeatures(
        codes,
        offsets,
        first.spec,
        first.calibration,
        pairs=pairs,
        words=Words.concat(words)[back] if words else None,
    )
