"""`pool_and_pack` over rows without padding: made once, called often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features import pack


class PackCall:
    """The mean of some layers in codes.

    Attributes:
        codes: uint8 [rows * seq, code_bytes], written by each call.
    """

    def __init__(
        self,
        layers: Sequence[NDArray[Any]],
        quantization: str = "sign",
        order: str = "pool_then_sign",
        level: str = "active",
    ) -> None:
        """layers: each [rows, seq, dim]; they are kept, not copied."""
        rows, seq, dim = layers[0].shape
        self._layers = layers
        self._lengths = np.full(rows, seq, np.int64)
        self._starts = np.arange(rows, dtype=np.int64) * seq
        self._quantization, self._order, self._level = quantization, order, level
        self._inverse_scale = self._zero_point = None
        if quantization == "uint8":  # any calibration takes as long, and as many bytes
            self._inverse_scale = np.full(dim, 40, np.float32)
            self._zero_point = np.full(dim, 128, np.float32)
        self.codes = np.empty((rows * seq, pack.code_bytes(dim, quantization)), np.uint8)

    def __call__(self) -> None:
        pack.pool_and_pack(
            self._layers,
            self._lengths,
            self._starts,
            self.codes,
            quantization=self._quantization,
            order=self._order,
            inverse_scale=self._inverse_scale,
            zero_point=self._zero_point,
            level=self._level,
        )
