"""Pools the layers of each token and packs them into codes: a thin face of the native kernels.

What is computed, to the bit, is in `kernels/SPEC.md`, and in NumPy in
`engine/features/reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.spec import Calibration, FeatureSpec

try:
    from bitheads.engine import _kernels
except ImportError as error:
    raise ImportError(
        f"engine._kernels: the native kernels cannot be loaded ({error}). They are built when the "
        "package is installed: type `pip install -e .` in the root of the repository"
    ) from error


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
    """Says which native kernels run.

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
    """Pools the layers of each real token and writes its code. Padded tokens are never read.

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
    # NumPy cannot lend bfloat16 memory to C, but it can lend its bits as uint16.
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


def pack_layers(
    layers: Sequence[NDArray[Any]],
    lengths: NDArray[np.int64],
    token_offsets: NDArray[np.int64],
    codes: NDArray[np.uint8],
    spec: FeatureSpec,
    calibration: Calibration,
) -> None:
    """`pool_and_pack` as a spec and its calibration ask for it."""
    pool_and_pack(
        layers,
        lengths,
        token_offsets,
        codes,
        quantization=spec.quantization.value,
        order=spec.order.value,
        layer_weights=(
            None if spec.layer_weights is None else np.array(spec.layer_weights, np.float32)
        ),
        thresholds=calibration.thresholds,
        inverse_scale=calibration.inverse_scale,
        zero_point=calibration.zero_point,
    )


def _is_bfloat16(layer: NDArray[Any]) -> bool:
    # By name: importing ml_dtypes is the caller's business. NumPy takes long to say a name.
    dtype = getattr(layer, "dtype", None)
    return dtype is not None and dtype.kind == "V" and dtype.name == "bfloat16"
