"""The CUDA kernels' source, run on the host, gives the bytes of the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from host_kernels import HostKernels, Ran, RefusedError
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    DIMS,
    DTYPES,
    MODES,
    GuardedMemory,
    check_runs,
    make_layers,
    make_options,
    make_strided_layers,
    shuffled_offsets,
    with_odd_strides,
)
from numpy.typing import NDArray

from bitheads.engine.features import pack


def check(
    kernels: HostKernels,
    layers: list[NDArray[Any]],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
    options: dict[str, Any],
    num_tokens: int | None = None,
    codes_shift_bytes: int = 0,
) -> Ran:
    """Compares with the reference; returns what ran."""
    ran: list[Ran] = []

    def run(*arguments: Any, **keywords: Any) -> None:
        ran.append(kernels.pool_and_pack(*arguments, **keywords))

    check_runs(
        {"CUDA on the host": run}, layers, lengths, offsets, options, num_tokens, codes_shift_bytes
    )
    return ran[0]


def aligned(array: NDArray[Any], shift_bytes: int = 0) -> NDArray[Any]:
    """A copy that starts `shift_bytes` past a multiple of 64."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    first = -memory.ctypes.data % 64 + shift_bytes
    moved = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def aligned_options(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: aligned(value) if isinstance(value, np.ndarray) else value
        for name, value in options.items()
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_reference(host_kernels: HostKernels, dtype: str, mode: str) -> None:
    """Both paths, by name: whole bytes of aligned features are loaded 16 bytes per thread."""
    rng = np.random.default_rng(0)
    for dim in DIMS:
        for num_layers in (1, 2, 5, 24):
            rows, seq = (4, 6) if dim < 128 else (2, 2)
            layers = [aligned(x) for x in make_layers(rng, num_layers, (rows, seq, dim), dtype)]
            lengths = np.array([seq, 1, 0, seq - 1])[:rows]
            options = aligned_options(make_options(rng, mode, num_layers, dim))
            offsets = shuffled_offsets(rng, lengths)
            ran = check(host_kernels, layers, lengths, offsets, options)
            assert ran.kernel.startswith(f"pool_and_pack_{dtype}_")
            assert ran.kernel.endswith("_vector" if dim % 8 == 0 else "_scalar")
            assert ("_weighted_" in ran.kernel) == ("layer_weights" in options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_layers(host_kernels: HostKernels, dtype: str, mode: str) -> None:
    """1 to 24 and the most one launch takes; dim 72 ends in the middle of a warp."""
    rng = np.random.default_rng(1)
    for num_layers in (*range(1, 25), 63, 64):
        for dim in (5, 72):
            layers = [aligned(x) for x in make_layers(rng, num_layers, (2, 3, dim), dtype)]
            lengths, offsets = np.array([2, 3]), np.array([3, 0])
            options = aligned_options(make_options(rng, mode, num_layers, dim))
            check(host_kernels, layers, lengths, offsets, options)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_layers=st.integers(1, 24),
    rows=st.integers(0, 5),
    seq=st.integers(0, 7),
    dim=st.integers(1, 200),
    dtype=st.sampled_from(sorted(DTYPES)),
    mode=st.sampled_from(sorted(MODES)),
    gap=st.integers(0, 2),
    reverse=st.booleans(),
)
def test_any_shape(
    host_kernels: HostKernels,
    seed: int,
    num_layers: int,
    rows: int,
    seq: int,
    dim: int,
    dtype: str,
    mode: str,
    gap: int,
    reverse: bool,
) -> None:
    rng = np.random.default_rng(seed)
    layers = make_strided_layers(rng, num_layers, (rows, seq, dim), dtype, reverse)
    lengths = rng.integers(0, seq + 1, rows)
    offsets = shuffled_offsets(rng, lengths, gap)
    num_tokens = int(lengths.sum()) + gap * rows
    check(
        host_kernels,
        layers,
        lengths,
        offsets,
        make_options(rng, mode, num_layers, dim),
        num_tokens,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("shift_bytes", [0, 2])
def test_every_16_bit_value(host_kernels: HostKernels, dtype: str, shift_bytes: int) -> None:
    values = np.arange(65536, dtype=np.uint16).view(DTYPES[dtype]).reshape(1, 64, 1024)
    values = aligned(values, shift_bytes)
    for quantization in ("sign", "float16"):
        options = {"quantization": quantization}
        ran = check(host_kernels, [values], np.array([64]), np.array([0]), options)
        assert ran.kernel.endswith("_scalar" if shift_bytes else "_vector")


@pytest.mark.parametrize("tail", [0, 1])
def test_rounding_of_codes(host_kernels: HostKernels, tail: int) -> None:
    """Neighbours of midpoints between float16 values; ties and ends of uint8. Both paths."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = ((halves[:-1] + halves[1:]) / 2).astype(np.float32)
    near = [middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))]
    ties = np.arange(-600, 600, dtype=np.float32) / 2
    ends = [65519.996, 65520, 65536, np.nan, np.inf, -np.inf, 3e38, 255.49998, 255.5, -0.5]
    values = np.concatenate([*near, ties, np.array(ends, np.float32)])
    values = np.concatenate([values, -values])
    values = aligned(values[: len(values) // 8 * 8 - tail])
    one, zero = aligned(np.ones_like(values)), aligned(np.zeros_like(values))
    for options in (
        {"quantization": "float16"},
        {"quantization": "uint8", "inverse_scale": one, "zero_point": zero},
    ):
        layer = values[np.newaxis, np.newaxis]
        ran = check(host_kernels, [layer], np.array([1]), np.array([0]), options)
        assert ran.kernel.endswith("_scalar" if tail else "_vector")


def test_products_and_sums_round_separately(host_kernels: HostKernels) -> None:
    """A fused multiply-add would see that w * x is a little more than -s, and give a 1."""
    x = np.float32(1 + 2**-12)
    layers = [np.full((1, 1, 64), -(x * x), np.float32), np.full((1, 1, 64), x, np.float32)]
    options = {"quantization": "sign", "layer_weights": np.array([1, x], np.float32)}
    check(host_kernels, layers, np.array([1]), np.array([0]), options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift_bytes", [1, 2, 4, 8])
def test_unaligned_memory(
    host_kernels: HostKernels, dtype: str, mode: str, shift_bytes: int
) -> None:
    rng = np.random.default_rng(2)
    for dim in (9, 64):
        layers = [aligned(x) for x in make_layers(rng, 3, (2, 3, dim), dtype)]
        layers[1] = aligned(layers[1], shift_bytes)
        options = make_options(rng, mode, 3, dim)
        lengths, offsets = np.array([3, 1]), np.array([1, 0])
        ran = check(host_kernels, layers, lengths, offsets, options, codes_shift_bytes=shift_bytes)
        assert ran.kernel.endswith("_scalar")


@pytest.mark.parametrize("mode", MODES)
def test_each_array_decides_the_path(host_kernels: HostKernels, mode: str) -> None:
    """One array off by an item and the rest aligned: the scalar kernel, with the same bytes."""
    rng = np.random.default_rng(3)
    layers = [aligned(x) for x in make_layers(rng, 2, (2, 3, 64), "float16")]
    lengths, offsets = np.array([3, 2]), np.array([0, 3])
    options = aligned_options(make_options(rng, mode, 2, 64))
    ran = check(host_kernels, layers, lengths, offsets, options)
    assert ran.kernel.endswith("_vector")
    for name in ("thresholds", "inverse_scale", "zero_point"):
        if name in options:
            moved = {**options, name: aligned(options[name], 4)}
            ran = check(host_kernels, layers, lengths, offsets, moved)
            assert ran.kernel.endswith("_scalar"), name
    shifted = check(host_kernels, layers, lengths, offsets, options, codes_shift_bytes=1)
    assert shifted.kernel.endswith("_vector" if options["quantization"] == "sign" else "_scalar")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_strides(host_kernels: HostKernels, dtype: str) -> None:
    """Tokens 3 bytes apart, rows 5; then reversed, repeated and transposed axes."""
    rng = np.random.default_rng(4)
    rows, seq, dim = 3, 4, 64
    layers = [with_odd_strides(x) for x in make_layers(rng, 2, (rows, seq, dim), dtype)]
    lengths, offsets = np.array([4, 2, 3]), np.array([2, 0, 6])
    (base,) = map(aligned, make_layers(rng, 1, (rows, seq, dim), dtype))
    views = [
        base,
        base[::-1],
        base[:, ::-1],
        np.broadcast_to(base[:1], base.shape),
        np.broadcast_to(base[:, :1], base.shape),
    ]
    for mode in MODES:
        ran = check(host_kernels, layers, lengths, offsets, make_options(rng, mode, 2, dim))
        assert ran.kernel.endswith("_scalar")
        options = aligned_options(make_options(rng, mode, len(views), dim))
        ran = check(host_kernels, views, lengths, offsets, options)
        assert ran.kernel.endswith("_vector")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("end", [True, False])
def test_stays_between_forbidden_pages(
    host_kernels: HostKernels, dtype: str, mode: str, end: bool
) -> None:
    rng = np.random.default_rng(5)

    def guarded(array: NDArray[Any]) -> NDArray[Any]:
        memory = GuardedMemory(array.nbytes)
        return memory.at_end(array) if end else memory.at_start(array)

    for dim in DIMS:
        layers = [guarded(layer) for layer in make_layers(rng, 2, (1, 2, dim), dtype)]
        options = {
            name: guarded(value) if isinstance(value, np.ndarray) else value
            for name, value in make_options(rng, mode, 2, dim).items()
        }
        lengths, offsets = guarded(np.array([2])), guarded(np.array([0]))
        check(host_kernels, layers, lengths, offsets, options)
        num_bytes = pack.code_bytes(dim, options["quantization"])
        codes = guarded(np.zeros((2, num_bytes), np.uint8))
        host_kernels.pool_and_pack(layers, lengths, offsets, codes, **options)


@pytest.mark.parametrize("mode", ["sign", "vote", "uint8_weights", "float16"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_is_never_read(host_kernels: HostKernels, dtype: str, mode: str) -> None:
    """The padded token of the row lies on a page that no one may touch."""
    rng = np.random.default_rng(6)
    for dim in DIMS:
        tokens = [layer[0] for layer in make_layers(rng, 3, (1, 2, dim), dtype)]
        layers = [GuardedMemory(t.nbytes).at_end(t, trailing=1)[np.newaxis] for t in tokens]
        assert layers[0].shape == (1, 3, dim)
        options = make_options(rng, mode, 3, dim)
        check(host_kernels, layers, np.array([2]), np.array([0]), options)


@pytest.mark.parametrize("shift_bytes", [0, 1, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_activation_is_read_once(
    host_kernels: HostKernels, dtype: str, shift_bytes: int
) -> None:
    rng = np.random.default_rng(7)
    for mode in ("sign", "vote", "float16_weights"):
        layers = [aligned(x, shift_bytes) for x in make_layers(rng, 5, (2, 6, 72), dtype)]
        lengths, offsets = np.array([6, 3]), np.array([0, 6])
        ran = check(host_kernels, layers, lengths, offsets, make_options(rng, mode, 5, 72))
        activations = 9 * 72 * 5 * layers[0].itemsize
        # Beside them, each thread reads its row's length and a warp with real tokens its offset.
        lanes_features = 1 if shift_bytes else 16 // layers[0].itemsize
        feature_blocks = -(-72 // (32 * lanes_features))
        threads = 2 * 8 * feature_blocks * 32
        real_threads = 9 * feature_blocks * 32
        assert ran.loaded_bytes == activations + 8 * threads + 8 * real_threads


@pytest.mark.parametrize(("rows", "seq"), [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_no_tokens(host_kernels: HostKernels, rows: int, seq: int) -> None:
    layers = [np.zeros((rows, seq, 9), np.float32)] * 2
    none = np.zeros(rows, np.int64)
    check(host_kernels, layers, none, none, {"quantization": "sign"})
    check(host_kernels, layers, none, none + 2, {"quantization": "sign"}, 2)


@pytest.mark.parametrize(
    ("num_layers", "shape"),
    [(65, (1, 1, 8)), (1, (65536, 1, 1)), (1, (1, 1, 65535 * 32 + 1))],
)
def test_refuses_what_one_launch_cannot_do(
    host_kernels: HostKernels, num_layers: int, shape: tuple[int, int, int]
) -> None:
    layer = np.broadcast_to(np.zeros(shape[2], np.float16), shape)
    none = np.zeros(shape[0], np.int64)
    with pytest.raises(RefusedError, match="1"):
        host_kernels.pool_and_pack(
            [layer] * num_layers, none, none, np.zeros((0, 1), np.uint8), quantization="sign"
        )
