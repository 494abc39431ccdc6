"""Pool the layers of each token and pack the result into codes: a thin face of the native kernels.

What is computed, to the bit, is in `kernels/SPEC.md`, and in NumPy in
`engine/features/reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features import reference

try:
    from bitheads.engine import _kernels
except ImportError as error:
    raise ImportError(
        f"engine._kernels: the native kernels cannot be loaded ({error}). They are built when the "
        "package is installed: type `pip install -e .` in the root of the repository"
    ) from error

_AFFINE_DEFAULTS = {"sign": (2.0, -1.0), "float16": (1.0, 0.0)}


@dataclass(frozen=True)
class KernelsInfo:
    """Which native kernels run.

    Attributes:
        active_level: the SIMD level in use, see `BITHEADS_KERNEL_LEVEL`.
        supported_levels: what this machine and this build can run, slowest first.
        abi_version: version of the C ABI.
    """

    active_level: str
    supported_levels: tuple[str, ...]
    abi_version: int


def kernels_info() -> KernelsInfo:
    """Say which native kernels run.

    Raises:
        ValueError: `BITHEADS_KERNEL_LEVEL` names a level that is unknown or cannot run here.
    """
    return KernelsInfo(
        active_level=_kernels.active_level(),
        supported_levels=tuple(_kernels.supported_levels()),
        abi_version=_kernels.abi_version(),
    )


def code_bytes(dim: int, quantization: str) -> int:
    """Bytes of one token's code.

    Raises:
        ValueError: dim is not positive, or the quantization is unknown.
    """
    return _kernels.code_bytes(dim, quantization)


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
    level: str = "active",
) -> None:
    """Pool the layers of each real token and write its code. Padded tokens are never read.

    Args:
        layers: m arrays [rows, seq, dim], first layer first, all float32, float16 or ml_dtypes
            bfloat16; any row and token strides, features contiguous. Never copied.
        lengths: int64 [rows], real tokens of each row.
        token_offsets: int64 [rows], index in `codes` of each row's first token. Rows must not
            overlap there.
        codes: uint8 [num_tokens, code_bytes], C-contiguous, written in place.
        quantization: `sign`, `uint8` or `float16`.
        order: `pool_then_sign`, or with `sign` also `sign_then_vote`.
        layer_weights: float32 [m], or None for the mean.
        thresholds: float32 [dim], only with `sign`; None is 0.
        inverse_scale: float32 [dim], needed with `uint8`.
        zero_point: float32 [dim], needed with `uint8`.
        level: `active`, or a level's name in tests and benchmarks.

    Raises:
        TypeError: an array has the wrong dtype, or is none.
        ValueError: an array has the wrong shape or layout, or the options do not go together.
    """
    # NumPy cannot lend bfloat16 memory to C, its bits as uint16 it can.
    are_bfloat16 = [_is_bfloat16(layer) for layer in layers]
    bfloat16 = bool(are_bfloat16) and all(are_bfloat16)
    if any(are_bfloat16) and not bfloat16:
        raise TypeError("layers: got bfloat16 and other dtypes, expected one dtype for all layers")
    _kernels.pool_and_pack(
        [layer.view(np.uint16) for layer in layers] if bfloat16 else list(layers),
        bfloat16,
        lengths,
        token_offsets,
        codes,
        quantization,
        order,
        layer_weights,
        thresholds,
        inverse_scale,
        zero_point,
        level,
    )


def unpack(
    codes: NDArray[np.uint8],
    dim: int,
    quantization: str,
    scale: NDArray[np.float32] | float | None = None,
    offset: NDArray[np.float32] | float | None = None,
) -> NDArray[np.float32]:
    """Turn codes back into numbers: x = scale * code + offset.

    Args:
        codes: uint8 [tokens, code_bytes].
        dim: features a token.
        quantization: `sign`, `uint8` or `float16`.
        scale: float32 [dim] or one number; None is 2 for signs, 1 for float16.
        offset: float32 [dim] or one number; None is -1 for signs, 0 for float16.

    Returns:
        float32 [tokens, dim].

    Raises:
        TypeError: codes are not a uint8 array.
        ValueError: a shape does not fit, or uint8 codes come without scale and offset.
    """
    num_bytes = code_bytes(dim, quantization)
    dtype = getattr(codes, "dtype", None)
    if dtype != np.uint8:
        raise TypeError(f"codes: got {dtype or type(codes).__name__}, expected a uint8 array")
    if codes.ndim != 2 or codes.shape[1] != num_bytes:
        raise ValueError(
            f"codes: got shape {list(codes.shape)}, expected [tokens, {num_bytes}] for {dim} "
            f"features as {quantization}; check that dim and quantization are those of packing"
        )
    default = _AFFINE_DEFAULTS.get(quantization)
    if default is None and (scale is None or offset is None):
        raise ValueError(
            f"scale, offset: got None, expected numbers for {quantization} codes; pass the "
            "calibration they were packed with: scale = 1 / inverse_scale and "
            "offset = -zero_point / inverse_scale"
        )
    default_scale, default_offset = default or (None, None)
    return reference.unpack(
        codes,
        dim,
        quantization,
        _per_feature("scale", default_scale if scale is None else scale, dim),
        _per_feature("offset", default_offset if offset is None else offset, dim),
    )


def _per_feature(name: str, value: Any, dim: int) -> NDArray[np.float32]:
    array = np.asarray(value, dtype=np.float32)
    if array.shape not in ((), (dim,)):
        raise ValueError(f"{name}: got shape {list(array.shape)}, expected one number or [{dim}]")
    return array


def _is_bfloat16(layer: NDArray[Any]) -> bool:
    # By name: importing ml_dtypes is the caller's business. NumPy takes long to say a name.
    dtype = getattr(layer, "dtype", None)
    return dtype is not None and dtype.kind == "V" and dtype.name == "bfloat16"
