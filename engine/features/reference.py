"""What the kernels compute, in NumPy: slow, plain, and the meaning every kernel is held to.

`kernels/SPEC.md` says the same in words. Each NumPy operation below rounds to float32 once, which
is exactly the rounding the kernels promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pooled_sum(
    layers: Sequence[NDArray[Any]], layer_weights: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Sums the layers of each token in float32, first layer first.

    Args:
        layers: m arrays [tokens, dim], float32, float16 or ml_dtypes bfloat16.
        layer_weights: float32 [m], or None for the plain sum.

    Returns:
        float32 [tokens, dim].
    """
    with np.errstate(all="ignore"):
        terms = [layer.astype(np.float32) for layer in layers]
        if layer_weights is not None:
            terms = [weight * term for weight, term in zip(layer_weights, terms, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
    return total


def pooled_mean(
    layers: Sequence[NDArray[Any]], layer_weights: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The pooled sum over its divisor: m without weights, 1 with; float32 [tokens, dim]."""
    divisor = np.float32(len(layers) if layer_weights is None else 1)
    mean: NDArray[np.float32] = pooled_sum(layers, layer_weights) / divisor
    return mean


def sign_codes(
    layers: Sequence[NDArray[Any]],
    order: str = "pool_then_sign",
    layer_weights: NDArray[np.float32] | None = None,
    thresholds: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """One bit per feature: is the mean (or are most layers) above the threshold?

    Args:
        layers: m arrays [tokens, dim].
        order: `pool_then_sign`, or `sign_then_vote` where a tie takes the `pool_then_sign` bit.
        layer_weights: float32 [m], or None.
        thresholds: float32 [dim], or None for 0.

    Returns:
        uint8 [tokens, ceil(dim / 8)], first feature in the most significant bit.
    """
    if thresholds is None:
        thresholds = np.zeros(layers[0].shape[1], np.float32)
    divisor = np.float32(len(layers) if layer_weights is None else 1)
    with np.errstate(all="ignore"):
        bits = pooled_sum(layers, layer_weights) > divisor * thresholds
        if order == "sign_then_vote":
            above = [layer.astype(np.float32) > thresholds for layer in layers]
            votes = np.sum(above, axis=0)
            bits = (2 * votes > len(layers)) | ((2 * votes == len(layers)) & bits)
    return np.packbits(bits, axis=1)


def uint8_codes(
    layers: Sequence[NDArray[Any]],
    inverse_scale: NDArray[np.float32],
    zero_point: NDArray[np.float32],
    layer_weights: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """One byte per feature: round(mean * inverse_scale + zero_point), clamped, NaN to 0.

    Args:
        layers: m arrays [tokens, dim].
        inverse_scale: float32 [dim].
        zero_point: float32 [dim].
        layer_weights: float32 [m], or None.

    Returns:
        uint8 [tokens, dim].
    """
    with np.errstate(all="ignore"):
        rounded = np.rint(pooled_mean(layers, layer_weights) * inverse_scale + zero_point)
    clamped = np.clip(np.where(np.isnan(rounded), np.float32(0), rounded), 0, 255)
    return clamped.astype(np.uint8)


def half_codes(
    layers: Sequence[NDArray[Any]], layer_weights: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Two bytes per feature: the mean as a little-endian float16.

    Args:
        layers: m arrays [tokens, dim].
        layer_weights: float32 [m], or None.

    Returns:
        uint8 [tokens, 2 * dim].
    """
    with np.errstate(all="ignore"):
        return pooled_mean(layers, layer_weights).astype("<f2").view(np.uint8)


def pool_and_pack(
    layers: Sequence[NDArray[Any]],
    lengths: NDArray[np.int64],
    token_offsets: NDArray[np.int64],
    codes: NDArray[np.uint8],
    *,
    quantization: str,
    order: str = "pool_then_sign",
    layer_weights: NDArray[np.float32] | None = None,
    thresholds: NDArray[np.float32] | None = None,
    inverse_scale: NDArray[np.float32] | None = None,
    zero_point: NDArray[np.float32] | None = None,
) -> None:
    """Pools the layers of each real token and writes its code; see `features.pack`.

    Args:
        layers: m arrays [rows, seq, dim], float32, float16 or ml_dtypes bfloat16.
        lengths: int64 [rows], real tokens of each row.
        token_offsets: int64 [rows], index in `codes` of each row's first token.
        codes: uint8 [num_tokens, code_bytes], written in place.
    """
    for row, (length, first) in enumerate(zip(lengths, token_offsets, strict=True)):
        tokens = [layer[row, :length] for layer in layers]
        if quantization == "sign":
            row_codes = sign_codes(tokens, order, layer_weights, thresholds)
        elif quantization == "uint8":
            assert inverse_scale is not None
            assert zero_point is not None
            row_codes = uint8_codes(tokens, inverse_scale, zero_point, layer_weights)
        else:
            row_codes = half_codes(tokens, layer_weights)
        codes[first : first + length] = row_codes
