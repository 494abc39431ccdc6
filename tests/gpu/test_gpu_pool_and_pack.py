"""On the GPU itself: the bytes of the NumPy reference, from every kernel."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from kernel_cases import (
    DIMS,
    DTYPES,
    MODES,
    as_dtype,
    check_runs,
    make_layers,
    make_options,
    shuffled_offsets,
)
from on_gpu import OnGpu

from bitheads.engine.features import pack

NUM_KERNELS = 42  # 3 dtypes x (3 modes with and without weights + the vote) x 2 paths


@pytest.fixture(scope="module")
def on_gpu(gpu: Any) -> OnGpu:
    return OnGpu(gpu)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_reference(on_gpu: OnGpu, dtype: str, mode: str) -> None:
    """Aligned, and two bytes (four of float32) past it, where only the scalar kernels go."""
    rng = np.random.default_rng(0)
    shift = 4 if dtype == "float32" else 2
    runs = {
        "aligned": on_gpu.pool_and_pack,
        "shifted": partial(on_gpu.pool_and_pack, shift_bytes=shift),
    }
    for dim in DIMS:
        for num_layers in (1, 2, 5, 24):
            rows, seq = (4, 6) if dim < 128 else (2, 2)
            layers = make_layers(rng, num_layers, (rows, seq, dim), dtype)
            lengths = np.array([seq, 1, 0, seq - 1])[:rows]
            options = make_options(rng, mode, num_layers, dim)
            check_runs(runs, layers, lengths, shuffled_offsets(rng, lengths), options)


def test_every_kernel_runs(on_gpu: OnGpu) -> None:
    rng = np.random.default_rng(1)
    for dtype in DTYPES:
        for mode in MODES:
            layers = make_layers(rng, 3, (2, 3, 72), dtype)
            lengths, offsets = np.array([2, 3]), np.array([3, 0])
            options = make_options(rng, mode, 3, 72)
            for shift in (0, 4):
                run = partial(on_gpu.pool_and_pack, shift_bytes=shift)
                check_runs({f"shift {shift}": run}, layers, lengths, offsets, options)
    assert len(on_gpu.kernels) == NUM_KERNELS


@pytest.mark.parametrize("mode", MODES)
def test_a_real_batch(on_gpu: OnGpu, mode: str) -> None:
    """RoBERTa-large's shape, 4,096 tokens, random lengths: as the processor's kernels have it."""
    rng = np.random.default_rng(2)
    num_layers, shape = 16, (64, 64, 1024)
    layers = [
        as_dtype(rng.standard_normal(shape, np.float32), "float16") for _ in range(num_layers)
    ]
    lengths = rng.integers(0, shape[1] + 1, shape[0])
    offsets = shuffled_offsets(rng, lengths)
    options = make_options(rng, mode, num_layers, shape[2])
    num_bytes = pack.code_bytes(shape[2], options["quantization"])
    got, expected = (np.zeros((int(lengths.sum()), num_bytes), np.uint8) for _ in range(2))
    on_gpu.pool_and_pack(layers, lengths, offsets, got, **options)
    pack.pool_and_pack(layers, lengths, offsets, expected, **options)
    np.testing.assert_array_equal(got, expected)


def test_padding_is_never_read(on_gpu: OnGpu) -> None:
    """Layers that end with the last real token: what follows is no one's."""
    rng = np.random.default_rng(3)
    layers = make_layers(rng, 4, (3, 8, 384), "float16")
    lengths, offsets = np.array([8, 3, 1]), np.array([0, 8, 11])
    options = make_options(rng, "sign", 4, 384)
    poisoned = [layer.copy() for layer in layers]
    for layer in poisoned:
        for row, length in enumerate(lengths):
            layer[row, length:] = np.nan
    for some in (layers, poisoned):
        check_runs({"gpu": on_gpu.pool_and_pack}, some, lengths, offsets, options)
