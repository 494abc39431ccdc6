"""The native kernels. What each computes, to the bit, is in kernels/SPEC.md."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def abi_version() -> int: ...
def active_level() -> str: ...
def supported_levels() -> list[str]: ...
def code_bytes(dim: int, quantization: str) -> int: ...
def pool_and_pack(
    layers: Sequence[NDArray[Any]],
    bfloat16: bool,
    lengths: NDArray[np.int64],
    token_offsets: NDArray[np.int64],
    codes: NDArray[np.uint8],
    quantization: str,
    order: str,
    layer_weights: NDArray[np.float32] | None = None,
    thresholds: NDArray[np.float32] | None = None,
    inverse_scale: NDArray[np.float32] | None = None,
    zero_point: NDArray[np.float32] | None = None,
    level: str = "active",
) -> None: ...
