"""The CUDA kernels of task heads, called on the host on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from host_kernels import QUANTIZATIONS, HostKernels, RefusedError
from numpy.typing import NDArray

GUARD_BYTES = 256
GUARD = 0x5C
POISON = 0xFF  # NaN as float16 and as float32


class AttentionPoolArgs(ctypes.Structure):
    """Of kernels/cuda/packed_attention_pool_launch.h."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("texts", ctypes.c_int64),
        ("quantization", ctypes.c_int),
        ("dim", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("queries", ctypes.c_void_p),
        ("column_scale", ctypes.c_void_p),
        ("end_bias", ctypes.c_void_p),
        ("pooled", ctypes.c_void_p),
    )


class _DenseGroup(ctypes.Structure):
    """bh_dense_group of kernels/include/bitheads/cuda.h."""

    _fields_ = (
        ("input", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("input_stride", ctypes.c_int64),
        ("output_stride", ctypes.c_int64),
        ("n", ctypes.c_int32),
        ("k", ctypes.c_int32),
    )


class GroupedDenseArgs(ctypes.Structure):
    """Of kernels/cuda/grouped_dense_launch.h."""

    _fields_ = (
        ("groups", ctypes.c_void_p),
        ("num_groups", ctypes.c_int64),
        ("largest_n", ctypes.c_int64),
        ("texts", ctypes.c_int64),
        ("kind", ctypes.c_int),
    )


@dataclass(frozen=True, eq=False)
class Queries:
    """Laid out queries: fragments uint8 [bytes], scale float32 [columns]."""

    fragments: NDArray[np.uint8]
    scale: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Weights:
    """Laid out weights of a dense stage: halves uint16 [n, row], scale float32 [n]."""

    halves: NDArray[np.uint16]
    scale: NDArray[np.float32]
    k: int


@dataclass(frozen=True, eq=False)
class Dense:
    """One group. inputs: float16 [texts, k]; outputs: [texts, n]; both rows may lie anywhere."""

    inputs: NDArray[np.float16]
    weights: Weights
    bias: NDArray[np.float32] | None
    outputs: NDArray[Any]


class GuardedArray:
    """A poisoned array in memory whose other bytes must stay as they are."""

    def __init__(self, shape: tuple[int, ...], dtype: type, shift_bytes: int = 0) -> None:
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._memory = np.full(num_bytes + 2 * GUARD_BYTES + 64, GUARD, np.uint8)
        self._first = -self._memory.ctypes.data % 64 + shift_bytes + 64
        self._last = self._first + num_bytes
        self._memory[self._first : self._last] = POISON
        self.array = self._memory[self._first : self._last].view(dtype).reshape(shape)

    def check(self) -> None:
        assert (self._memory[: self._first] == GUARD).all(), "wrote before the array"
        assert (self._memory[self._last :] == GUARD).all(), "wrote past the array"


def aligned(array: NDArray[Any], shift_bytes: int = 0) -> NDArray[Any]:
    """A copy that starts `shift_bytes` past a multiple of 64."""
    memory = np.full(array.nbytes + 128, POISON, np.uint8)
    first = -memory.ctypes.data % 64 + shift_bytes
    moved = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


class HostHeads:
    """The functions of tests/cuda/host that concern heads."""

    def __init__(self, kernels: HostKernels) -> None:
        self._library = kernels.library
        for name in ("attention_pool_queries_bytes_on_host", "dense_row_halves_on_host"):
            getattr(self._library, name).restype = ctypes.c_int64

    def lay_out_queries(self, queries: NDArray[np.float32], quantization: str) -> Queries:
        """queries: float32 [columns, dim]. Raises RefusedError."""
        columns, dim = queries.shape
        queries = np.ascontiguousarray(queries, np.float32)
        sizes = (ctypes.c_int64(columns), ctypes.c_int64(dim), QUANTIZATIONS.index(quantization))
        num_bytes = self._library.attention_pool_queries_bytes_on_host(*sizes)
        fragments = GuardedArray((num_bytes,), np.uint8)
        scale = GuardedArray((columns,), np.float32)
        out = (_pointer(fragments.array), _pointer(scale.array))
        if status := self._library.lay_out_queries_on_host(_pointer(queries), *sizes, *out):
            raise RefusedError(status)
        fragments.check()
        scale.check()
        return Queries(fragments.array, scale.array)

    def attention_pool(
        self,
        codes: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        queries: Queries,
        end_bias: NDArray[np.float32],
        *,
        dim: int,
        quantization: str,
    ) -> NDArray[np.float16]:
        """Pooled codes float16 [texts, columns, dim rounded up to 32], from the planned grid."""
        columns = len(queries.scale)
        assert offsets.dtype == np.int64
        assert end_bias.dtype == np.float32
        pooled = GuardedArray((len(offsets) - 1, columns, -(-dim // 32) * 32), np.float16)
        call = AttentionPoolArgs(
            codes=codes.ctypes.data,
            offsets=offsets.ctypes.data,
            texts=len(offsets) - 1,
            quantization=QUANTIZATIONS.index(quantization),
            dim=dim,
            columns=columns,
            queries=queries.fragments.ctypes.data,
            column_scale=queries.scale.ctypes.data,
            end_bias=end_bias.ctypes.data,
            pooled=pooled.array.ctypes.data,
        )
        kernel = self.launch(call)
        assert kernel == f"packed_attention_pool_{quantization}"
        pooled.check()
        return pooled.array

    def lay_out_dense(self, weights: NDArray[np.float32]) -> Weights:
        """weights: float32 [n, k]. Raises RefusedError."""
        n, k = weights.shape
        weights = np.ascontiguousarray(weights, np.float32)
        row = self._library.dense_row_halves_on_host(ctypes.c_int64(k))
        halves, scale = GuardedArray((n, row), np.uint16), GuardedArray((n,), np.float32)
        sizes = (ctypes.c_int64(n), ctypes.c_int64(k))
        out = (_pointer(halves.array), _pointer(scale.array))
        if status := self._library.lay_out_dense_on_host(_pointer(weights), *sizes, *out):
            raise RefusedError(status)
        halves.check()
        scale.check()
        return Weights(halves.array, scale.array, k)

    def grouped_dense(
        self, groups: Sequence[Dense], texts: int, *, tanh: bool = False, output: str = "float16"
    ) -> None:
        """Writes every group's outputs in one launch."""
        table = (_DenseGroup * max(len(groups), 1))()
        for row, group in zip(table, groups, strict=False):
            n = len(group.weights.scale)
            assert group.inputs.dtype == np.float16
            assert group.outputs.dtype == np.dtype(output)
            assert group.inputs.shape == (texts, group.weights.k)
            assert group.outputs.shape == (texts, n)
            for name in ("inputs", "outputs"):
                assert getattr(group, name).strides[1] == getattr(group, name).itemsize
            row.input = group.inputs.ctypes.data
            row.weights = group.weights.halves.ctypes.data
            row.scale = group.weights.scale.ctypes.data
            row.bias = None if group.bias is None else group.bias.ctypes.data
            row.output = group.outputs.ctypes.data
            row.input_stride = group.inputs.strides[0] // 2
            row.output_stride = group.outputs.strides[0] // group.outputs.itemsize
            row.n, row.k = n, group.weights.k
        call = GroupedDenseArgs(
            groups=ctypes.addressof(table),
            num_groups=len(groups),
            largest_n=max((len(group.weights.scale) for group in groups), default=0),
            texts=texts,
            kind=2 if output == "float32" else 1 if tanh else 0,
        )
        kernel = self.launch(call)
        assert kernel == f"grouped_dense_{'tanh_' if tanh else ''}{output}"

    def launch(self, call: AttentionPoolArgs | GroupedDenseArgs) -> str:
        """Runs the planned grid; the name of its kernel. Raises RefusedError."""
        if isinstance(call, AttentionPoolArgs):
            run = self._library.run_attention_pool_on_host
        else:
            run = self._library.run_grouped_dense_on_host
        kernel, error = ctypes.c_char_p(), ctypes.create_string_buffer(256)
        if status := run(ctypes.byref(call), ctypes.byref(kernel), error):
            raise RefusedError(status)
        assert not error.value, error.value.decode()
        assert kernel.value is not None
        return kernel.value.decode()


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
