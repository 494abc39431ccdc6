"""What kernels/cuda plans for a launch, from addresses on the device."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from host_kernels import DTYPES, ORDERS, QUANTIZATIONS, _Args, _Layer
from numpy.typing import NDArray


@dataclass(frozen=True)
class PlannedLaunch:
    """A kernel's name, its shape, and its one argument."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    args: NDArray[np.void]


def plan_pool_and_pack(
    library: ctypes.CDLL,
    layers: list[tuple[int, NDArray[Any]]],
    addresses: dict[str, int],
    *,
    num_tokens: int,
    quantization: str,
    order: str = "pool_then_sign",
    layer_weights: NDArray[np.float32] | None = None,
) -> PlannedLaunch:
    """Args:
    library: that of `host_kernels.build`.
    layers: address and the array [rows, seq, dim] that lies there.
    addresses: of the other arrays of bh_pool_and_pack_args, by name.
    """
    rows, seq, dim = layers[0][1].shape
    structs = [_Layer(address, x.strides[0], x.strides[1]) for address, x in layers]
    args = _Args(
        layers=(_Layer * len(layers))(*structs),
        num_layers=len(layers),
        dtype=DTYPES[layers[0][1].dtype],
        rows=rows,
        seq=seq,
        dim=dim,
        quantization=QUANTIZATIONS.index(quantization),
        order=ORDERS.index(order),
        num_tokens=num_tokens,
        layer_weights=None if layer_weights is None else layer_weights.ctypes.data,
        **addresses,
    )
    kernel, shape = ctypes.c_char_p(), (ctypes.c_uint32 * 6)()
    memory = ctypes.create_string_buffer(32764)
    plan = library.plan_pool_and_pack_on_host
    status = plan(ctypes.byref(args), ctypes.byref(kernel), shape, memory)
    assert status == 0
    assert kernel.value is not None
    library.kernel_args_bytes_on_host.restype = ctypes.c_uint64
    num_bytes = library.kernel_args_bytes_on_host(kernel.value)
    grid, block = tuple(shape[:3]), tuple(shape[3:])
    return PlannedLaunch(kernel.value.decode(), grid, block, np.void(memory.raw[:num_bytes]))  # type: ignore[arg-type]
