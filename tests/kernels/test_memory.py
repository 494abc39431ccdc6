"""Only the features of real tokens are read, only their codes are written, nothing is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_cases import (
    DIMS,
    DTYPES,
    MODES,
    GuardedMemory,
    assert_same_codes,
    check_against_reference,
    expected_codes,
    make_layers,
    make_options,
    with_odd_strides,
)

from bitheads.engine.features import pack


def _guarded(array: np.ndarray, end: bool) -> np.ndarray:
    memory = GuardedMemory(array.nbytes)
    return memory.at_end(array) if end else memory.at_start(array)


@pytest.mark.parametrize("end", [True, False], ids=["end", "start"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_stays_between_forbidden_pages(level: str, dtype: str, mode: str, end: bool) -> None:
    rng = np.random.default_rng(0)
    for dim in DIMS:
        layers = [_guarded(layer, end) for layer in make_layers(rng, 2, (1, 2, dim), dtype)]
        options: dict[str, Any] = {
            name: _guarded(value, end) if isinstance(value, np.ndarray) else value
            for name, value in make_options(rng, mode, 2, dim).items()
        }
        lengths = _guarded(np.array([2]), end)
        offsets = _guarded(np.array([0]), end)
        num_bytes = pack.code_bytes(dim, options["quantization"])
        codes = _guarded(np.zeros((2, num_bytes), np.uint8), end)
        pack.pool_and_pack(layers, lengths, offsets, codes, level=level, **options)
        expected = expected_codes(layers, lengths, offsets, codes, options)
        assert_same_codes(codes, expected, options["quantization"], f"dim {dim}")


@pytest.mark.parametrize("mode", ["sign", "vote", "uint8_weights", "float16"])
def test_padding_is_never_read(level: str, mode: str) -> None:
    """The padded token of the row lies on a page that no one may touch."""
    rng = np.random.default_rng(1)
    for dim in DIMS:
        tokens = [layer[0] for layer in make_layers(rng, 3, (1, 2, dim), "float32")]
        layers = [GuardedMemory(t.nbytes).at_end(t, trailing=1)[np.newaxis] for t in tokens]
        assert layers[0].shape == (1, 3, dim)
        options = make_options(rng, mode, 3, dim)
        check_against_reference(layers, np.array([2]), np.array([0]), options, [level])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift_bytes", [1, 2, 3, 4])
def test_unaligned_layers(level: str, dtype: str, mode: str, shift_bytes: int) -> None:
    rng = np.random.default_rng(2)
    for dim in (9, 64, 127):
        layers = []
        for layer in make_layers(rng, 3, (2, 3, dim), dtype):
            raw = bytes(shift_bytes) + layer.tobytes()
            # frombuffer also makes them read-only.
            moved = np.frombuffer(raw, np.uint8, offset=shift_bytes)
            layers.append(moved.view(layer.dtype).reshape(layer.shape))
        lengths, offsets = np.array([3, 1]), np.array([1, 0])
        check_against_reference(layers, lengths, offsets, make_options(rng, mode, 3, dim), [level])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_strides_that_are_no_multiple_of_the_item(level: str, dtype: str) -> None:
    """Tokens 3 bytes apart, rows 5: the strides are in bytes."""
    rng = np.random.default_rng(3)
    rows, seq, dim = 3, 4, 65
    layers = [with_odd_strides(x) for x in make_layers(rng, 2, (rows, seq, dim), dtype)]
    lengths = np.array([4, 2, 3])
    offsets = np.array([2, 0, 6])
    for mode in MODES:
        options = make_options(rng, mode, 2, dim)
        check_against_reference(layers, lengths, offsets, options, [level])


def test_broadcast_and_reversed_axes(level: str) -> None:
    rng = np.random.default_rng(4)
    (base,) = make_layers(rng, 1, (4, 5, 65), "float16")
    layers = [
        base,
        base[::-1],
        base[:, ::-1],
        np.broadcast_to(base[:1], base.shape),
        np.broadcast_to(base[:, :1], base.shape),
        np.ascontiguousarray(base.transpose(1, 0, 2)).transpose(1, 0, 2),
    ]
    options = {"quantization": "sign", "order": "sign_then_vote"}
    lengths = np.array([5, 5, 4, 1])
    check_against_reference(layers, lengths, np.cumsum(lengths) - lengths, options, [level])


@pytest.mark.parametrize(("rows", "seq"), [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_no_tokens(level: str, rows: int, seq: int) -> None:
    layers = [np.zeros((rows, seq, 9), np.float32)] * 2
    none = np.zeros(rows, np.int64)
    check_against_reference(layers, none, none, {"quantization": "sign"}, [level])
    check_against_reference(layers, none, none + 2, {"quantization": "sign"}, [level], 2)
