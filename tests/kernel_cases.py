"""Inputs for the kernel tests, and memory that crashes when touched where it should not be."""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.features import pack, reference

DIMS = (1, 7, 8, 9, 63, 64, 65, 127, 384, 768, 1024)
NUM_LAYERS = (1, 2, 3, 4, 16)
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

# name: (quantization, order, the optional arrays it takes)
MODES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "sign": ("sign", "pool_then_sign", ()),
    "sign_thresholds": ("sign", "pool_then_sign", ("thresholds",)),
    "sign_weights": ("sign", "pool_then_sign", ("layer_weights",)),
    "sign_both": ("sign", "pool_then_sign", ("layer_weights", "thresholds")),
    "vote": ("sign", "sign_then_vote", ()),
    "vote_thresholds": ("sign", "sign_then_vote", ("thresholds",)),
    "uint8": ("uint8", "pool_then_sign", ("inverse_scale", "zero_point")),
    "uint8_weights": (
        "uint8",
        "pool_then_sign",
        ("inverse_scale", "zero_point", "layer_weights"),
    ),
    "float16": ("float16", "pool_then_sign", ()),
    "float16_weights": ("float16", "pool_then_sign", ("layer_weights",)),
}

_NEGATED_TOO = [0.0, np.inf, 65504, 65520, 6e-8, 2e-5, 1e-39, 3e38, 0.5, 1, 2]
_SPECIAL = np.array([np.nan, *_NEGATED_TOO, *(-x for x in _NEGATED_TOO)], np.float32)


def numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 `shape`: normals, small halves that make ties and zero sums, and special values."""
    kind = rng.random(shape)
    halves = rng.integers(-3, 4, shape).astype(np.float32) / 2
    plain = np.where(kind < 0.5, rng.standard_normal(shape, np.float32), halves)
    return np.where(kind < 0.9, plain, rng.choice(_SPECIAL, shape)).astype(np.float32)


def as_dtype(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        return values.astype(DTYPES[dtype])


def make_layers(
    rng: np.random.Generator, num_layers: int, shape: tuple[int, int, int], dtype: str
) -> list[NDArray[Any]]:
    return [as_dtype(numbers(rng, shape), dtype) for _ in range(num_layers)]


needs_mxcsr = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="sets x86 MXCSR"
)


@contextmanager
def odd_floating_point() -> Iterator[None]:
    """This thread flushes subnormals and rounds up meanwhile, as some libraries leave it; it must
    still do so at the end."""
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 8)()  # fenv_t; its last word is MXCSR
    assert libm.fegetenv(environment) == 0
    original = environment[7]
    environment[7] = original | 0x8040 | 0x4000
    assert libm.fesetenv(environment) == 0
    try:
        yield
        assert libm.fegetenv(environment) == 0
        left = environment[7]
    finally:
        environment[7] = original
        libm.fesetenv(environment)
    assert left & 0xE040 == 0xC040, "the caller's mode is put back"


def make_strided_layers(
    rng: np.random.Generator,
    num_layers: int,
    shape: tuple[int, int, int],
    dtype: str,
    reverse: bool,
) -> list[NDArray[Any]]:
    """Layers [rows, seq, dim] that are views, each with strides of its own."""
    rows, seq, dim = shape
    layers = []
    for _ in range(num_layers):
        extra = rng.integers(0, 3, 3)
        wide = as_dtype(numbers(rng, (rows + extra[0], seq + extra[1], dim + extra[2])), dtype)
        layer = wide[:rows, :seq, :dim]
        layers.append(layer[::-1, ::-1] if reverse else layer)
    return layers


def with_odd_strides(layer: NDArray[Any]) -> NDArray[Any]:
    """A copy whose tokens lie 3 bytes apart and whose rows 5: no multiple of the item."""
    rows, seq, dim = layer.shape
    token_stride = dim * layer.itemsize + 3
    row_stride = seq * token_stride + 5
    strides = (row_stride, token_stride, layer.itemsize)
    odd = np.ndarray(layer.shape, layer.dtype, bytearray(rows * row_stride), 0, strides)
    odd[...] = layer
    return odd


def make_options(rng: np.random.Generator, mode: str, num_layers: int, dim: int) -> dict[str, Any]:
    """Keyword arguments of `pool_and_pack` for a mode."""
    quantization, order, arrays = MODES[mode]
    made = {
        "layer_weights": rng.choice(np.array([0.1, 1, -0.7, 0, 0.3], np.float32), num_layers),
        "thresholds": numbers(rng, (dim,)),
        "inverse_scale": rng.choice(np.array([1, 0.5, -2, 31.7, 1e30], np.float32), dim),
        "zero_point": rng.choice(np.array([0, 127.5, 128, -3, 255], np.float32), dim),
    }
    options = {name: made[name] for name in arrays}
    return {"quantization": quantization, "order": order, **options}


def shuffled_offsets(
    rng: np.random.Generator, lengths: NDArray[np.int64], gap: int = 0
) -> NDArray[np.int64]:
    """int64 [rows]: rows laid out one after another in a random order, `gap` tokens between."""
    order = rng.permutation(len(lengths))
    offsets = np.zeros(len(lengths), np.int64)
    offsets[order] = np.cumsum(np.concatenate([[0], lengths[order] + gap]))[:-1]
    return offsets


def expected_codes(
    layers: list[NDArray[Any]],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
    like: NDArray[np.uint8],
    options: dict[str, Any],
) -> NDArray[np.uint8]:
    """What the reference leaves in an array that starts out as `like`."""
    codes = like.copy()
    reference.pool_and_pack(layers, lengths, offsets, codes, **options)
    return codes


def assert_same_codes(
    got: NDArray[np.uint8], expected: NDArray[np.uint8], quantization: str, what: str
) -> None:
    if quantization == "float16":  # a NaN's payload is unspecified
        halves, wanted = got.view("<f2"), expected.view("<f2")
        np.testing.assert_array_equal(np.isnan(halves), np.isnan(wanted), err_msg=what)
        got = np.where(np.isnan(halves), 0, halves.view("<u2"))
        expected = np.where(np.isnan(wanted), 0, wanted.view("<u2"))
    np.testing.assert_array_equal(got, expected, err_msg=what)


def check_against_reference(
    layers: list[NDArray[Any]],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
    options: dict[str, Any],
    levels: list[str],
    num_tokens: int | None = None,
) -> None:
    """Every level, on codes that start as 0xA5 and must stay so where no token goes."""
    runs = {level: partial(pack.pool_and_pack, level=level) for level in levels}
    check_runs(runs, layers, lengths, offsets, options, num_tokens)


def check_runs(
    runs: Mapping[str, Callable[..., object]],
    layers: list[NDArray[Any]],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
    options: dict[str, Any],
    num_tokens: int | None = None,
    codes_shift_bytes: int = 0,
) -> None:
    """The same for any implementations, by name, called as `pack.pool_and_pack` is."""
    dim = layers[0].shape[2]
    if num_tokens is None:
        num_tokens = int(lengths.sum())
    num_bytes = pack.code_bytes(dim, options["quantization"])
    blank = np.full((num_tokens, num_bytes), 0xA5, np.uint8)
    expected = expected_codes(layers, lengths, offsets, blank, options)
    for name, run in runs.items():
        memory = np.full(num_tokens * num_bytes + 128, 0xA5, np.uint8)
        end = len(memory) - 64 + codes_shift_bytes
        codes = memory[64 + codes_shift_bytes : end].reshape(num_tokens, num_bytes)
        run(layers, lengths, offsets, codes, **options)
        what = f"{name}, m={len(layers)}, shape={layers[0].shape}, {layers[0].dtype}"
        assert_same_codes(codes, expected, options["quantization"], what)
        assert (memory[: 64 + codes_shift_bytes] == 0xA5).all(), f"wrote before codes: {what}"
        assert (memory[end:] == 0xA5).all(), f"wrote past codes: {what}"


def levels() -> list[str]:
    return _kernels.supported_levels()


class GuardedMemory:
    """Bytes between two pages that no one may touch."""

    def __init__(self, num_bytes: int) -> None:
        page = mmap.PAGESIZE
        self._inner_bytes = -(-max(num_bytes, 1) // page) * page
        self._memory = mmap.mmap(-1, self._inner_bytes + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        libc = ctypes.CDLL(None, use_errno=True)
        for address in (start, start + page + self._inner_bytes):
            assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0) == 0

    def at_end(self, like: NDArray[Any], trailing: int = 0) -> NDArray[Any]:
        """A copy of `like` [first axis, ...] whose last byte is the last allowed one.

        The result has `trailing` more items on its first axis, which lie on the forbidden page.
        """
        offset = mmap.PAGESIZE + self._inner_bytes - like.nbytes
        shape = (like.shape[0] + trailing, *like.shape[1:])
        array = np.ndarray(shape, like.dtype, buffer=self._memory, offset=offset)
        array[: like.shape[0]] = like
        return array

    def at_start(self, like: NDArray[Any]) -> NDArray[Any]:
        """A copy of `like` whose first byte is the first allowed one."""
        array = np.ndarray(like.shape, like.dtype, buffer=self._memory, offset=mmap.PAGESIZE)
        array[...] = like
        return array
