"""Packed features: the codes of some texts, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError, SpecMismatchError
from bitheads.engine.features.codes import code_affine, unpack
from bitheads.engine.features.ragged import offsets_of, ranges
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.features.words import NUM_TOKENS, TOKEN, Words
from bitheads.engine.types import Stats


@dataclass(frozen=True, eq=False)
class PackedFeatures:
    """Codes of the real tokens of some texts, ragged: no padding is ever stored.

    Attributes:
        codes: uint8 [total_tokens, code_bytes].
        offsets: int64 [texts + 1]; text i owns codes[offsets[i]:offsets[i + 1]].
        spec: what the codes mean.
        calibration: the spec's per-feature constants, where it has any.
        stats: what the call that made them cost, where a call did.
        pairs: bool [texts], which texts were pairs; None where nobody knows. A head answers only
            texts of its form, see engine.texts.forms.
        words: of the texts, where they were asked for: what heads of words read.
        embeddings: float32 [texts, embedding dim], where they were asked for, see
            engine.features.embedding; as the checkpoint makes them.
    """

    codes: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    spec: FeatureSpec
    calibration: Calibration | None = None
    stats: Stats = field(default_factory=Stats)
    pairs: NDArray[np.bool_] | None = None
    words: Words | None = None
    embeddings: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        codes, offsets, code_bytes = self.codes, self.offsets, self.spec.code_bytes
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != code_bytes:
            raise InputError(
                f"codes: got {codes.dtype} {list(codes.shape)}, expected uint8 [tokens, "
                f"{code_bytes}] for spec {self.spec}."
            )
        if offsets.dtype != np.int64 or offsets.ndim != 1 or offsets.size < 1:
            raise InputError(
                f"offsets: got {offsets.dtype} {list(offsets.shape)}, expected int64 [texts + 1]."
            )
        if offsets[0] != 0 or offsets[-1] != codes.shape[0] or (self.num_tokens < 0).any():
            raise InputError(
                f"offsets: expected 0 first, {codes.shape[0]} (the tokens) last, never falling; "
                f"got {offsets[0]} first and {offsets[-1]} last."
            )
        pairs = self.pairs
        if pairs is not None and (pairs.dtype != np.bool_ or pairs.shape != (len(self),)):
            raise InputError(
                f"pairs: got {pairs.dtype} {list(pairs.shape)}, expected bool [{len(self)}], one "
                "for each text, or None."
            )
        if self.words is not None:
            self._check_words(self.words)
        found = self.embeddings
        if found is not None and (
            found.dtype != np.float32 or found.ndim != 2 or len(found) != len(self)
        ):
            raise InputError(
                f"embeddings: got {found.dtype} {list(found.shape)}, expected float32 "
                f"[{len(self)}, dim], one for each text, or None."
            )

    def _check_words(self, words: Words) -> None:
        if len(words) != len(self):
            raise InputError(
                f"words: got those of {len(words)} texts, expected {len(self)}, as many as texts."
            )
        first, count = words.table[:, TOKEN], words.table[:, NUM_TOKENS]
        room = np.repeat(self.num_tokens, np.diff(words.offsets))
        if ((first < 0) | (count < 1) | (first + count > room)).any():
            raise InputError("words: got tokens that are none of their text's. Encode it again.")

    def of_words(self) -> PackedFeatures:
        """The codes of words: each word of each text as a text.

        Raises InputError if nobody asked for words when the texts were encoded.
        """
        words = self.words
        if words is None:
            raise InputError(
                "features: got none of words, expected them for a head of the kind token_label. "
                "Encode the texts with words=True (bitheads encode --spans)."
            )
        firsts = words.table[:, TOKEN] + np.repeat(self.offsets[:-1], np.diff(words.offsets))
        rows, offsets = ranges(firsts, words.table[:, NUM_TOKENS])
        return PackedFeatures(self.codes[rows], offsets, self.spec, self.calibration)

    def __len__(self) -> int:
        """Number of texts."""
        return self.offsets.size - 1

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 [texts]."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def nbytes(self) -> int:
        """Bytes of all codes."""
        return self.codes.nbytes

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> PackedFeatures:
        """Some of the texts, again as PackedFeatures; a step-1 slice shares the codes' memory.

        An integer gives one text; integers and booleans in a sequence or array gather texts.
        """
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(len(self))
            stop = max(start, stop)
            first, last = self.offsets[start], self.offsets[stop]
            offsets = self.offsets[start : stop + 1] - first
            return self._with(self.codes[first:last], offsets, slice(start, stop))
        if isinstance(index, tuple):  # to NumPy, one index per dimension
            index = list(index)
        chosen = np.atleast_1d(np.arange(len(self), dtype=np.int64)[index])
        rows, offsets = ranges(self.offsets[chosen], self.num_tokens[chosen])
        return self._with(self.codes[rows], offsets, chosen)

    def __iter__(self) -> Iterator[PackedFeatures]:
        return (self[i] for i in range(len(self)))

    def unpack(self) -> NDArray[np.float32]:
        """The features the codes stand for, float32 [total_tokens, dim].

        Signs come back as -1 and +1. Raises SpecMismatchError for uint8 without calibration.
        """
        scale, offset = code_affine(self.spec, self.calibration)
        return unpack(self.codes, self.spec.dim, self.spec.quantization.value, scale, offset)

    @staticmethod
    def concat(parts: Sequence[PackedFeatures]) -> PackedFeatures:
        """The texts of all parts, in order. Raises SpecMismatchError if their specs differ."""
        if not parts:
            raise InputError("concat: got no parts, expected at least one.")
        first = parts[0]
        for part in parts[1:]:
            if part.spec.id != first.spec.id:
                raise SpecMismatchError(
                    f"concat: got features of spec {part.spec}, expected spec {first.spec}. "
                    "Encode all texts with one bundle."
                )
        offsets = offsets_of(np.concatenate([part.num_tokens for part in parts]))
        codes = np.concatenate([part.codes for part in parts])
        stats = sum((part.stats for part in parts), Stats())
        known = [part.pairs for part in parts if part.pairs is not None]
        pairs = np.concatenate(known) if len(known) == len(parts) else None
        all_words = [part.words for part in parts if part.words is not None]
        words = Words.concat(all_words) if len(all_words) == len(parts) else None
        vectors = [part.embeddings for part in parts if part.embeddings is not None]
        embeddings = np.concatenate(vectors) if len(vectors) == len(parts) else None
        return PackedFeatures(
            codes, offsets, first.spec, first.calibration, stats, pairs, words, embeddings
        )

    def _with(
        self,
        codes: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        chosen: slice | NDArray[np.int64],
    ) -> PackedFeatures:
        pairs = None if self.pairs is None else self.pairs[chosen]
        words = None if self.words is None else self.words[chosen]
        embeddings = None if self.embeddings is None else self.embeddings[chosen]
        return PackedFeatures(
            codes,
            offsets,
            self.spec,
            self.calibration,
            pairs=pairs,
            words=words,
            embeddings=embeddings,
        )


def check_pairs(pairs: NDArray[Any], features: PackedFeatures) -> NDArray[np.int64]:
    """Pairs of the features' texts as int64 [pairs, 2], contiguous.

    Raises InputError for another shape or type, for rows that no text has, and for texts that are
    pairs already.
    """
    rows = np.asarray(pairs)
    if rows.size == 0:
        rows = np.empty((0, 2), np.int64)
    if rows.ndim != 2 or rows.shape[1] != 2 or not np.issubdtype(rows.dtype, np.integer):
        raise InputError(
            f"pairs: got {rows.dtype} {list(rows.shape)}, expected int64 [pairs, 2], rows of the "
            "features."
        )
    outside = (rows < 0) | (rows >= len(features))
    if outside.any():
        at = int(outside.any(axis=1).argmax())
        raise InputError(
            f"pairs: got {rows[at].tolist()} as pair {at}, expected rows of the features' texts, 0 "
            f"to {len(features) - 1}."
        )
    if features.pairs is not None and features.pairs[rows].any():
        at = int(features.pairs[rows].any(axis=1).argmax())
        raise InputError(
            f"pairs: got {rows[at].tolist()} as pair {at}, of which one was encoded as a pair, "
            "expected single texts. Encode the texts of pairs one by one."
        )
    return np.ascontiguousarray(rows, np.int64)
