"""Packed features: the codes of some texts, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError, SpecMismatchError
from bitheads.engine.features.codes import code_affine, unpack
from bitheads.engine.features.spec import Calibration, FeatureSpec
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
    """

    codes: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    spec: FeatureSpec
    calibration: Calibration | None = None
    stats: Stats = field(default_factory=Stats)
    pairs: NDArray[np.bool_] | None = None

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
        counts = self.num_tokens[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        codes = self.codes[np.repeat(self.offsets[chosen], counts) + within]
        return self._with(codes, offsets, chosen)

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
        counts = np.concatenate([part.num_tokens for part in parts])
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        codes = np.concatenate([part.codes for part in parts])
        stats = sum((part.stats for part in parts), Stats())
        known = [part.pairs for part in parts if part.pairs is not None]
        pairs = np.concatenate(known) if len(known) == len(parts) else None
        return PackedFeatures(codes, offsets, first.spec, first.calibration, stats, pairs)

    def _with(
        self,
        codes: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        chosen: slice | NDArray[np.int64],
    ) -> PackedFeatures:
        pairs = None if self.pairs is None else self.pairs[chosen]
        return PackedFeatures(codes, offsets, self.spec, self.calibration, pairs=pairs)
