"""What a head of the form `two_texts` computes, in NumPy: the meaning its kernel is held to.

`kernels/SPEC.md` (combine_texts) says the same in words. Each float32 operation below rounds once;
sums of integers are exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.heads.reference import fixed_values, predict_head

Float32 = NDArray[np.float32]


def predict_pairs(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    dim: int,
    quantization: str,
    head: FoldedHead,
    pairs: NDArray[np.int64],
) -> Float32:
    """The outputs of a head of the form two_texts for pairs of texts.

    Args:
        codes, offsets, dim, quantization: of the texts, see `predict_head`.
        pairs: int64 [pairs, 2], which texts.

    Returns:
        float32 [pairs, outputs].
    """
    assert head.pair is not None, "asked of heads of the form two_texts"
    vectors = predict_head(codes, offsets, dim, quantization, head)
    rows = combine_texts(vectors, pairs)
    ends = np.arange(len(rows) + 1)
    return predict_head(rows, ends, rows.shape[1], "uint8", head.pair)


def combine_texts(vectors: Float32, pairs: NDArray[np.int64]) -> NDArray[np.uint8]:
    """What the pair half reads, uint8 [pairs, 4 size + 2].

    Args:
        vectors: float32 [texts, size].
        pairs: int64 [pairs, 2], rows of them.
    """
    # A NaN becomes 0, an infinity the largest float32.
    b = fixed_values(np.nan_to_num(vectors)).a
    squares = (b * b).sum(axis=1)
    with np.errstate(divide="ignore"):
        root = np.sqrt(squares.astype(np.float32) / np.float32(vectors.shape[1]))
        gain = np.where(squares == 0, np.float32(0), np.float32(1) / root)
    unit = b.astype(np.float32) * gain[:, np.newaxis]
    first, second = pairs.T
    u, w = unit[first], unit[second]
    difference = np.abs(u - w)
    codes = [
        np.rint(u * np.float32(32)) + 128,
        np.rint(w * np.float32(32)) + 128,
        np.rint(difference * np.float32(32)),
        np.rint(u * w * np.float32(8)) + 128,
        cosine_codes((b[first] * b[second]).sum(axis=1), squares[first], squares[second]),
    ]
    rows: NDArray[np.uint8] = np.clip(np.concatenate(codes, axis=1), 0, 255).astype(np.uint8)
    return rows


def cosine_codes(
    products: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Two bytes for each pair, float64 [pairs, 2], the higher one first.

    Args:
        products, first, second: float64 [pairs], integers: of two vectors, and of each by itself.
    """
    some = (first != 0) & (second != 0)
    cosine = np.where(some, products / np.sqrt(np.where(some, first * second, 1)), 0)
    steps = np.clip(np.rint((cosine + 1) * 32767.5), 0, 65535)
    return np.stack([steps // 256, steps % 256], axis=1)
