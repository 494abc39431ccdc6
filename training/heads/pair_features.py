"""Features of pairs whose texts were each encoded by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec
from bitheads.engine.texts.apart import take_apart
from bitheads.engine.types import Text


@dataclass(frozen=True, eq=False)
class PairFeatures:
    """Pairs of texts of which each may be in several.

    Attributes:
        texts: each of them once.
        pairs: int64 [pairs, 2], rows of the texts.
    """

    texts: PackedFeatures
    pairs: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> PairFeatures:
        """Some of the pairs, over the same texts."""
        return PairFeatures(self.texts, self.pairs[rows])

    @property
    def spec(self) -> FeatureSpec:
        return self.texts.spec

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of the longer text of each pair, int64 [pairs]."""
        tokens: NDArray[np.int64] = self.texts.num_tokens[self.pairs].max(axis=1, initial=0)
        return tokens


Codes = PackedFeatures | PairFeatures
"""What heads read that are trained for bundles."""


def encode_apart(pairs: Sequence[Text], encode: Callable[..., PackedFeatures]) -> PairFeatures:
    """Pairs of texts, each different text encoded by itself and once.

    Args:
        encode: as Engine.encode.
    """
    placed, texts = take_apart(pairs, ())
    return PairFeatures(encode(texts), placed.pairs)
