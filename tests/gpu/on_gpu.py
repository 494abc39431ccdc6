"""pool_and_pack and pool_positions on the GPU, called like the references, in guarded bytes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.context import Gpu
from bitheads.engine import _kernels

GUARD_BYTES = 64
FILL = 0xA5
DEVICE_ARRAYS = ("thresholds", "inverse_scale", "zero_point")


class OnGpu:
    """Uploads, launches, downloads.

    Attributes:
        kernels: names of all that were launched.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.kernels: set[str] = set()

    def pool_and_pack(
        self,
        layers: list[NDArray[Any]],
        lengths: NDArray[np.int64],
        token_offsets: NDArray[np.int64],
        codes: NDArray[np.uint8],
        *,
        quantization: str,
        order: str = "pool_then_sign",
        layer_weights: NDArray[np.float32] | None = None,
        shift_bytes: int = 0,
        **arrays: NDArray[np.float32],
    ) -> None:
        """`shift_bytes` moves layers and codes away from the alignment of allocations."""
        gpu, cuda = self._gpu, self._gpu.device.cuda
        rows, seq, dim = layers[0].shape
        with gpu.device.current("testing pool_and_pack"), ExitStack() as stack:

            def upload(array: NDArray[Any], shift: int = 0) -> int:
                data = np.frombuffer(array.tobytes(), np.uint8)
                (memory,) = stack.enter_context(gpu.memory(data.nbytes + shift))
                if data.size:
                    cuda.memcpy_htod(int(memory) + shift, data)
                return int(memory) + shift

            size = codes.nbytes + 2 * GUARD_BYTES + shift_bytes
            (memory,) = stack.enter_context(gpu.memory(size))
            cuda.memset_d8(int(memory), FILL, size)
            launch = _kernels.plan_pool_and_pack(
                [upload(layer, shift_bytes) for layer in layers],
                layers[0].dtype.name,
                rows,
                seq,
                dim,
                lengths,
                token_offsets,
                upload(lengths),
                upload(token_offsets),
                int(memory) + GUARD_BYTES + shift_bytes,
                len(codes),
                quantization,
                order,
                layer_weights,
                **{name: upload(arrays[name]) for name in DEVICE_ARRAYS if name in arrays},
            )
            gpu.code.launch(launch, gpu.stream)
            gpu.stream.synchronize()
            back = np.empty(size, np.uint8)
            cuda.memcpy_dtoh(back, int(memory))
        self.kernels.add(launch[0])
        first = GUARD_BYTES + shift_bytes
        assert (back[:first] == FILL).all(), f"{launch[0]} wrote before its codes"
        assert (back[first + codes.nbytes :] == FILL).all(), f"{launch[0]} wrote past its codes"
        codes[...] = back[first : first + codes.nbytes].reshape(codes.shape)

    def pool_positions(
        self, states: NDArray[Any], lengths: NDArray[np.int64], pooling: str
    ) -> NDArray[np.float32]:
        """float32 [rows, dim], which was written as a part of longer rows."""
        gpu, cuda = self._gpu, self._gpu.device.cuda
        rows, seq, dim = states.shape
        stride, first = dim + 3, GUARD_BYTES // 4
        guarded = np.full(rows * stride + 2 * first, -1, np.float32)
        with gpu.device.current("testing pool_positions"), ExitStack() as stack:
            addresses = []
            for array in (states, lengths, guarded):
                (memory,) = stack.enter_context(gpu.memory(array.nbytes))
                cuda.memcpy_htod(int(memory), np.frombuffer(array.tobytes(), np.uint8))
                addresses.append(int(memory))
            launch = _kernels.plan_pool_positions(
                addresses[0],
                states.dtype.name,
                rows,
                seq,
                dim,
                lengths,
                addresses[1],
                pooling,
                addresses[2] + GUARD_BYTES,
                stride,
            )
            gpu.code.launch(launch, gpu.stream)
            gpu.stream.synchronize()
            cuda.memcpy_dtoh(guarded, addresses[2])
        self.kernels.add(launch[0])
        table = guarded[first:-first].reshape(rows, stride)
        strays = (guarded[:first], guarded[-first:], table[:, dim:])
        assert all((part == -1).all() for part in strays), f"{launch[0]} wrote beside its rows"
        return table[:, :dim].copy()
