"""Every level computes what the NumPy reference computes, to the bit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    DIMS,
    DTYPES,
    MODES,
    NUM_LAYERS,
    check_against_reference,
    levels,
    make_layers,
    make_options,
    make_strided_layers,
    needs_mxcsr,
    odd_floating_point,
    shuffled_offsets,
)

from bitheads.engine.features import pack, reference


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_equal_reference(dtype: str, mode: str) -> None:
    rng = np.random.default_rng(0)
    for dim in DIMS:
        for num_layers in NUM_LAYERS:
            rows, seq = (3, 4) if dim < 128 else (2, 2)
            layers = make_layers(rng, num_layers, (rows, seq, dim), dtype)
            lengths = rng.integers(0, seq + 1, rows)
            options = make_options(rng, mode, num_layers, dim)
            check_against_reference(
                layers, lengths, shuffled_offsets(rng, lengths), options, levels()
            )


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_layers=st.integers(1, 6),
    rows=st.integers(0, 5),
    seq=st.integers(0, 7),
    dim=st.integers(1, 200),
    dtype=st.sampled_from(sorted(DTYPES)),
    mode=st.sampled_from(sorted(MODES)),
    gap=st.integers(0, 2),
    reverse=st.booleans(),
)
def test_any_shape(
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
    options = make_options(rng, mode, num_layers, dim)
    check_against_reference(layers, lengths, offsets, options, levels(), num_tokens)


@pytest.mark.parametrize("mode", ["sign", "vote", "uint8", "float16"])
def test_batch_equals_rows_one_by_one(level: str, mode: str) -> None:
    rng = np.random.default_rng(1)
    layers = make_layers(rng, 4, (5, 6, 65), "float16")
    lengths = np.array([6, 0, 3, 1, 5])
    offsets = np.cumsum(lengths) - lengths
    options = make_options(rng, mode, 4, 65)
    num_bytes = pack.code_bytes(65, options["quantization"])
    together = np.zeros((15, num_bytes), np.uint8)
    pack.pool_and_pack(layers, lengths, offsets, together, level=level, **options)
    for row, (length, first) in enumerate(zip(lengths, offsets, strict=True)):
        alone = np.zeros((length, num_bytes), np.uint8)
        pack.pool_and_pack(
            [layer[row : row + 1] for layer in layers],
            lengths[row : row + 1],
            np.zeros(1, np.int64),
            alone,
            level=level,
            **options,
        )
        np.testing.assert_array_equal(alone, together[first : first + length])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_value(level: str, dtype: str) -> None:
    """Conversion of each of the 65,536 inputs, through signs and through float16 codes."""
    values = np.arange(65536, dtype=np.uint16).view(DTYPES[dtype]).reshape(1, 64, 1024)
    lengths, offsets = np.array([64]), np.array([0])
    for quantization in ("sign", "float16"):
        options = {"quantization": quantization}
        check_against_reference([values], lengths, offsets, options, [level])


def test_float16_rounding(level: str) -> None:
    """float32 neighbours of every midpoint between two float16 values."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = ((halves[:-1] + halves[1:]) / 2).astype(np.float32)
    near = [middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))]
    values = np.concatenate([*near, np.array([65519.996, 65520, 65536], np.float32)])
    values = np.concatenate([values, -values])[np.newaxis, np.newaxis]
    check_against_reference(
        [values], np.array([1]), np.array([0]), {"quantization": "float16"}, [level]
    )


def test_uint8_ties_and_ends(level: str) -> None:
    values = np.arange(-600, 600, dtype=np.float32) / 2
    ends = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 255.49998, 255.5, -0.5], np.float32)
    values = np.concatenate([values, ends])
    options = {
        "quantization": "uint8",
        "inverse_scale": np.ones_like(values),
        "zero_point": np.zeros_like(values),
    }
    check_against_reference(
        [values[np.newaxis, np.newaxis]], np.array([1]), np.array([0]), options, [level]
    )


def test_products_and_sums_round_separately(level: str) -> None:
    """A fused multiply-add would see that w * x is a little more than -s, and give a 1."""
    x = np.float32(1 + 2**-12)
    layers = [np.full((1, 1, 64), -(x * x), np.float32), np.full((1, 1, 64), x, np.float32)]
    assert np.float64(x) * np.float64(x) > np.float64(x * x)
    codes = np.zeros((1, 8), np.uint8)
    pack.pool_and_pack(
        layers,
        np.array([1]),
        np.array([0]),
        codes,
        quantization="sign",
        layer_weights=np.array([1, x], np.float32),
        level=level,
    )
    np.testing.assert_array_equal(codes, 0)


@needs_mxcsr
def test_floating_point_mode_of_the_thread_does_not_matter(level: str) -> None:
    rng = np.random.default_rng(2)
    layers = [(rng.standard_normal((4, 4, 65)) * 10.0**-s).astype(np.float32) for s in (0, 39, 1)]
    layers = [np.concatenate([layer, layer * 1e-38]) for layer in layers]
    lengths, offsets = np.full(8, 4), np.arange(8) * 4
    options = {"quantization": "float16"}
    expected = np.zeros((32, 130), np.uint8)
    reference.pool_and_pack(layers, lengths, offsets, expected, **options)
    signs = np.zeros((32, 9), np.uint8)
    reference.pool_and_pack(layers, lengths, offsets, signs, quantization="sign")
    codes, sign_codes = np.zeros_like(expected), np.zeros_like(signs)

    with odd_floating_point():
        pack.pool_and_pack(layers, lengths, offsets, codes, level=level, **options)
        pack.pool_and_pack(layers, lengths, offsets, sign_codes, level=level, quantization="sign")
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(sign_codes, signs)


def test_threads_share_inputs(level: str) -> None:
    rng = np.random.default_rng(3)
    layers = make_layers(rng, 4, (4, 32, 384), "float16")
    lengths, offsets = np.full(4, 32), np.arange(4) * 32
    outputs = [np.zeros((128, 48), np.uint8) for _ in range(4)]

    def work(codes: np.ndarray) -> None:
        pack.pool_and_pack(layers, lengths, offsets, codes, quantization="sign", level=level)

    threads = [threading.Thread(target=work, args=(codes,)) for codes in outputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for codes in outputs[1:]:
        np.testing.assert_array_equal(codes, outputs[0])
