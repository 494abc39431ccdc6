"""What codes stand for: the numbers that were packed, x ~ scale * code + offset."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import SpecMismatchError
from bitheads.engine.features.spec import Calibration, FeatureSpec, Quantization, code_bytes

_AFFINE_DEFAULTS = {"sign": (2.0, -1.0), "float16": (1.0, 0.0)}


def code_affine(
    spec: FeatureSpec, calibration: Calibration | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and offset of a spec's codes: x ~ scale * code + offset, each float32 [dim].

    Raises SpecMismatchError for uint8 codes without their calibration.
    """
    ones = np.ones(spec.dim, np.float32)
    if spec.quantization is Quantization.SIGN:
        return 2 * ones, -ones
    if spec.quantization is Quantization.FLOAT16:
        return ones, 0 * ones
    if calibration is None or calibration.scale is None or calibration.zero_point is None:
        raise SpecMismatchError(
            f"uint8 codes of spec {spec.id} cannot be read without their scale and zero point: "
            "got no calibration. Pass calibration=engine.calibration of the bundle that made them."
        )
    return calibration.scale, -calibration.scale * calibration.zero_point


def unpack(
    codes: NDArray[np.uint8],
    dim: int,
    quantization: str,
    scale: NDArray[np.float32] | float | None = None,
    offset: NDArray[np.float32] | float | None = None,
) -> NDArray[np.float32]:
    """Turns codes back into numbers: x = scale * code + offset.

    Args:
        codes: uint8 [tokens, code_bytes].
        dim: features per token.
        quantization: `sign`, `uint8` or `float16`.
        scale: float32 [dim] or one number; None is 2 for signs, 1 for float16.
        offset: float32 [dim] or one number; None is -1 for signs, 0 for float16.

    Returns:
        float32 [tokens, dim].

    Raises:
        TypeError: codes are not a uint8 array.
        ValueError: a shape does not fit, or uint8 codes come without scale and offset.
    """
    num_bytes = code_bytes(dim, Quantization(quantization))
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
    scale = _per_feature("scale", default_scale if scale is None else scale, dim)
    offset = _per_feature("offset", default_offset if offset is None else offset, dim)
    if quantization == "sign":
        numbers = np.unpackbits(codes, axis=1, count=dim)
    elif quantization == "uint8":
        numbers = codes
    else:
        numbers = np.ascontiguousarray(codes).view("<f2")
    with np.errstate(all="ignore"):
        return numbers.astype(np.float32) * scale + offset


def _per_feature(name: str, value: Any, dim: int) -> NDArray[np.float32]:
    array = np.asarray(value, dtype=np.float32)
    if array.shape not in ((), (dim,)):
        raise ValueError(f"{name}: got shape {list(array.shape)}, expected one number or [{dim}]")
    return array
