"""The CUDA kernels compiled for the host and called like `engine.features.pack.pool_and_pack`."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.embedding import POOLINGS

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "tests/cuda/host/kernels_on_host.cpp"
# SPEC.md rounds after every operation, as the kernels' intrinsics do on the device.
FLAGS = ["-std=c++17", "-O2", "-g", "-fPIC", "-shared", "-ffp-contract=off"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
INCLUDES = ["-Ikernels/include", "-Itests/cuda/host"]
DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(ml_dtypes.bfloat16): 2}
QUANTIZATIONS = ("sign", "uint8", "float16")
ORDERS = ("pool_then_sign", "sign_then_vote")


class _Layer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("row_stride_bytes", ctypes.c_int64),
        ("token_stride_bytes", ctypes.c_int64),
    )


class _Args(ctypes.Structure):
    """bh_pool_and_pack_args of kernels/include/bitheads/kernels.h."""

    _fields_ = (
        ("layers", ctypes.POINTER(_Layer)),
        ("num_layers", ctypes.c_int64),
        ("dtype", ctypes.c_int),
        ("rows", ctypes.c_int64),
        ("seq", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("lengths", ctypes.c_void_p),
        ("token_offsets", ctypes.c_void_p),
        ("quantization", ctypes.c_int),
        ("order", ctypes.c_int),
        ("layer_weights", ctypes.c_void_p),
        ("thresholds", ctypes.c_void_p),
        ("inverse_scale", ctypes.c_void_p),
        ("zero_point", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("num_tokens", ctypes.c_int64),
        ("level", ctypes.c_int),
    )


class _PoolArgs(ctypes.Structure):
    """bh_pool_positions_args of kernels/include/bitheads/cuda.h."""

    _fields_ = (
        ("states", _Layer),
        ("dtype", ctypes.c_int),
        ("rows", ctypes.c_int64),
        ("seq", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("lengths", ctypes.c_void_p),
        ("pooling", ctypes.c_int),
        ("pooled", ctypes.c_void_p),
        ("pooled_stride", ctypes.c_int64),
    )


@dataclass(frozen=True)
class Ran:
    """What a call did.

    Attributes:
        kernel: name of the kernel that ran.
        loaded_bytes: what its threads read from the arrays.
    """

    kernel: str
    loaded_bytes: int


class RefusedError(Exception):
    """The launch plan refused the arguments; `args[0]` is the status."""


class GridError(Exception):
    """The grid did what no device allows, or there is no such kernel."""


class HostKernels:
    """The shared library of tests/cuda/host."""

    def __init__(self, library: Path) -> None:
        self.path = library
        self.library = ctypes.CDLL(str(library))
        self._run = self.library.run_pool_and_pack_on_host

    def pool_and_pack(
        self,
        layers: Sequence[NDArray[Any]],
        lengths: NDArray[np.int64],
        token_offsets: NDArray[np.int64],
        codes: NDArray[np.uint8],
        *,
        quantization: str,
        order: str = "pool_then_sign",
        **arrays: NDArray[np.float32],
    ) -> Ran:
        """Runs the grid that would be launched; arguments as `pack.pool_and_pack` takes them."""
        assert lengths.dtype == token_offsets.dtype == np.int64
        assert all(array.dtype == np.float32 for array in arrays.values())
        rows, seq, dim = layers[0].shape
        structs = [_Layer(x.ctypes.data, x.strides[0], x.strides[1]) for x in layers]
        args = _Args(
            layers=(_Layer * len(layers))(*structs),
            num_layers=len(layers),
            dtype=DTYPES[layers[0].dtype],
            rows=rows,
            seq=seq,
            dim=dim,
            lengths=lengths.ctypes.data,
            token_offsets=token_offsets.ctypes.data,
            quantization=QUANTIZATIONS.index(quantization),
            order=ORDERS.index(order),
            codes=codes.ctypes.data,
            num_tokens=len(codes),
            **{name: array.ctypes.data for name, array in arrays.items()},
        )
        kernel, loaded = ctypes.c_char_p(), ctypes.c_uint64()
        error = ctypes.create_string_buffer(256)
        out = (ctypes.byref(kernel), ctypes.byref(loaded), error)
        if status := self._run(ctypes.byref(args), *out):
            raise RefusedError(status)
        assert not error.value, error.value.decode()
        assert kernel.value is not None
        return Ran(kernel.value.decode(), loaded.value)

    def pool_positions(
        self,
        states: NDArray[Any],
        lengths: NDArray[np.int64],
        pooling: str,
        pooled: NDArray[np.float32],
    ) -> Ran:
        """Runs the grid that would be launched.

        Args:
            states: [rows, seq, dim], of any strides.
            pooling: of engine.features.embedding.POOLINGS.
            pooled: float32 [rows, dim], written.
        """
        assert lengths.dtype == np.int64
        assert pooled.dtype == np.float32
        rows, seq, dim = states.shape
        args = _PoolArgs(
            states=_Layer(states.ctypes.data, states.strides[0], states.strides[1]),
            dtype=DTYPES[states.dtype],
            rows=rows,
            seq=seq,
            dim=dim,
            lengths=lengths.ctypes.data,
            pooling=POOLINGS.index(pooling),
            pooled=pooled.ctypes.data,
            pooled_stride=pooled.strides[0] // 4,
        )
        kernel, loaded = ctypes.c_char_p(), ctypes.c_uint64()
        error = ctypes.create_string_buffer(256)
        run = self.library.run_pool_positions_on_host
        if status := run(ctypes.byref(args), ctypes.byref(kernel), ctypes.byref(loaded), error):
            raise RefusedError(status)
        assert not error.value, error.value.decode()
        assert kernel.value is not None
        return Ran(kernel.value.decode(), loaded.value)

    def run(
        self,
        name: str,
        args: ctypes.Structure,
        block: tuple[int, int, int],
        grid: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        """Runs any kernel on its argument. Raises GridError."""
        error = ctypes.create_string_buffer(256)
        shape = ((ctypes.c_uint32 * 3)(*grid), (ctypes.c_uint32 * 3)(*block), 0)
        if self.library.run_kernel_on_host(name.encode(), ctypes.byref(args), *shape, error):
            raise GridError(error.value.decode())

    def run_in_reverse(self, reverse: bool) -> None:
        """From now on the last thread of a block runs first, or the first one again."""
        self.library.run_threads_in_reverse_on_host(int(reverse))


def build(sanitizers: str = os.environ.get("BITHEADS_SANITIZE", "")) -> HostKernels:
    """`compile_library`, loaded: Python must then run with the sanitizers' runtime preloaded."""
    return HostKernels(compile_library(sanitizers))


def compile_library(sanitizers: str = "") -> Path:
    """Compiles the library into build/cuda-host if a source is newer.

    Args:
        sanitizers: as -fsanitize= takes them.
    """
    library = ROOT / f"build/cuda-host/on_host{'-' if sanitizers else ''}{sanitizers}.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    folders = ("kernels", "kernels/cuda", "kernels/include/bitheads", SOURCE.parent)
    sources = [path for folder in folders for path in (ROOT / folder).iterdir() if path.is_file()]
    newest = max(path.stat().st_mtime for path in sources)
    if not library.exists() or library.stat().st_mtime < newest:
        extra = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"] if sanitizers else []
        made = library.with_suffix(f".{os.getpid()}")
        compiler = os.environ.get("CXX", "c++")
        command = [compiler, *FLAGS, *WARNINGS, *INCLUDES, *extra, str(SOURCE), "-o", str(made)]
        # A preloaded sanitizer is for the tests, not for the compiler.
        environment = {name: v for name, v in os.environ.items() if name != "LD_PRELOAD"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        made.replace(library)
    return library
