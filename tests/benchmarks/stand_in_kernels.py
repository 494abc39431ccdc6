"""The native head kernels' calls in NumPy, for a build of the binding that lacks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.heads.accuracy import softmax
from engine import _kernels
from engine.pack import unpack

Weights = dict[str, Any]


class StandInKernels:
    """See engine/_kernels.pyi. A block of memory holds the number of its head."""

    def __init__(self) -> None:
        self._heads: list[Weights] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(_kernels, name)

    def head_bytes(
        self, quantization: str, pooling: str, dim: int, heads: int, inner: int, classes: int
    ) -> int:
        return 8 + 2 * dim * dim

    def lay_out_head(
        self, head: np.ndarray, quantization: str, pooling: str, *arrays: np.ndarray | None
    ) -> None:
        assert head.ctypes.data % 64 == 0
        head[:8].view(np.int64)[0] = len(self._heads)
        names = ("query", "value", "dense", "dense_bias", "output", "output_bias")
        self._heads.append({"pooling": pooling, **dict(zip(names, arrays, strict=True))})

    def predict_heads_workspace(self, *arguments: Any) -> int:
        return 128

    def predict_heads(
        self,
        codes: np.ndarray,
        offsets: np.ndarray,
        dim: int,
        quantization: str,
        heads: Sequence[np.ndarray],
        logits: Sequence[np.ndarray],
        workspace: np.ndarray,
        level: str = "active",
    ) -> None:
        assert workspace.ctypes.data % 64 == 0
        one, zero = np.ones(dim, np.float32), np.zeros(dim, np.float32)
        unpacked = unpack(codes, dim, quantization, one, zero).astype(np.float64)
        for block, out in zip(heads, logits, strict=True):
            head = self._heads[block[:8].view(np.int64)[0]]
            for text in range(offsets.size - 1):
                out[text] = _logits(head, unpacked[offsets[text] : offsets[text + 1]])

    def run_dot_products(self, level: str, multiply_adds: int) -> int:
        products = np.ones((multiply_adds // 1000 + 1, 1000), np.float32)
        np.dot(products, products[0])
        return products.size


def _logits(head: Weights, codes: np.ndarray) -> np.ndarray:
    if head["pooling"] == "attention":
        pooled = softmax(head["query"] @ codes.T) @ codes
        value = head["value"].reshape(len(pooled), -1, codes.shape[1])
        inner = np.concatenate([rows @ one for rows, one in zip(value, pooled, strict=True)])
    else:
        inner = codes.mean(axis=0) if head["pooling"] == "mean" else codes[0]
    hidden = np.tanh(head["dense"] @ inner + head["dense_bias"])
    logits: np.ndarray = head["output"] @ hidden + head["output_bias"]
    return logits
