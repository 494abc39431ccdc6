"""A laid out head, byte for byte: every level writes what the reference says, where it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from head_cases import guarded, unaligned
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.heads import reference as reference_heads

Float32 = NDArray[np.float32]
PANEL_ROWS, DEPTH_MULTIPLE, ALIGNMENT = 16, 32, 64  # of head_layout.h


def padded(array: NDArray[np.generic], *shape: int) -> NDArray[np.generic]:
    return np.pad(array, [(0, n - have) for n, have in zip(shape, array.shape, strict=True)])


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def aligned_part(array: NDArray[np.generic]) -> bytes:
    data = array.tobytes()
    return data.ljust(round_up(len(data), ALIGNMENT), b"\0")


def matrix_parts(groups: list[Float32], bias: Float32 | None = None) -> bytes:
    """Panels of 16 rows, two features of each side by side; then the numbers of the rows."""
    parts: list[list[NDArray[np.generic]]] = [[], [], [], []]
    for group in groups:
        fixed = reference_heads.quantize_rows(group)
        rows = round_up(len(group), PANEL_ROWS)
        depth = round_up(group.shape[1], DEPTH_MULTIPLE)
        q = padded(fixed.q.astype(np.int16), rows, depth)
        parts[0].append(q.reshape(-1, PANEL_ROWS, depth // 2, 2).swapaxes(1, 2))
        none = np.zeros(len(group), np.float32)
        for part, numbers in zip(
            parts[1:], (fixed.step, fixed.row_sum, none if bias is None else bias), strict=True
        ):
            part.append(padded(numbers, rows))
    return b"".join(aligned_part(np.concatenate(part)) for part in parts)


def expected_block(
    quantization: str,
    query: Float32 | None,
    value: Float32 | None,
    dense: Float32,
    dense_bias: Float32,
    output: Float32,
    output_bias: Float32,
) -> bytes:
    """All of the block but its first 64 bytes, the sizes."""
    block = b""
    if query is not None and value is not None:
        q, log2_step = reference_heads.quantize_queries(query, quantization == "sign")
        q = padded(q.astype(np.int16), len(q), round_up(q.shape[1], DEPTH_MULTIPLE))
        block += aligned_part(q.reshape(len(q), -1, 2).swapaxes(0, 1))
        block += aligned_part(log2_step)
        block += matrix_parts(np.split(value, len(query)))
    return block + matrix_parts([dense], dense_bias) + matrix_parts([output], output_bias)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return rng.normal(0, 0.06, shape).astype(np.float32)


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    """The largest weight makes the step an odd number, and others lie halfway between two steps."""
    w = np.zeros(shape, np.float32)
    few = rng.random(shape) < min(1, 4 / shape[-1])
    w[few] = rng.integers(-65533, 65534, np.count_nonzero(few)) / np.float32(2)
    w[..., -1] = 32767
    return w * np.float32((1 + 2 * rng.integers(250)) * 2.0 ** rng.integers(-20, 20))


def any_size(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    """From subnormal to huge in one row, zeros of both signs among them."""
    w = rng.normal(size=shape) * 10.0 ** rng.integers(-44, 20, shape)
    return np.where(rng.random(shape) < 0.2, np.copysign(0, w), w).astype(np.float32)


def subnormal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return (rng.normal(0, 1e-41, shape)).astype(np.float32)


def zeros(_: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("weights", [normal, ties, any_size, subnormal, zeros])
@pytest.mark.parametrize(
    ("dim", "attention_heads", "inner", "classes"),
    [
        (1, 1, 1, 2),
        (7, 0, 9, 3),
        (33, 3, 17, 2),
        (64, 64, 16, 33),
        (65, 5, 40, 3),
        (257, 1, 31, 2),
        (384, 12, 384, 2),
        (513, 27, 258, 17),
        (511, 0, 600, 16),
    ],
)
@pytest.mark.parametrize("quantization", ["sign", "uint8"])
def test_every_byte(
    level: str,
    quantization: str,
    dim: int,
    attention_heads: int,
    inner: int,
    classes: int,
    weights: Callable[[np.random.Generator, tuple[int, ...]], Float32],
) -> None:
    rng = np.random.default_rng(dim)
    attends = attention_heads > 0
    head = (
        weights(rng, (attention_heads, dim)) if attends else None,
        weights(rng, (dim, dim)) if attends else None,
        weights(rng, (inner, dim)),
        normal(rng, (inner,)),
        weights(rng, (classes, inner)),
        normal(rng, (classes,)),
    )
    pooling = "attention" if attends else "mean"
    num_bytes = _kernels.head_bytes(quantization, pooling, dim, attention_heads, inner, classes)
    with guarded(num_bytes) as block:
        _kernels.lay_out_head(block, quantization, pooling, *head, level=level)
    assert block[64:].tobytes() == expected_block(quantization, *head)


def test_every_float16(level: str) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    floats = np.empty(halves.shape, np.float32)
    _kernels.floats_of_halves(halves, floats, level)
    expected = halves.astype(np.float32)
    assert np.array_equal(np.isnan(floats), np.isnan(expected))
    numbers = ~np.isnan(expected)
    assert floats[numbers].tobytes() == expected[numbers].tobytes()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 31, 33])
def test_any_number_of_float16(level: str, count: int) -> None:
    halves = np.random.default_rng(count).normal(size=count).astype(np.float16)
    with guarded(4 * count) as room:
        _kernels.floats_of_halves(halves, room.view(np.float32), level)
    assert room.tobytes() == halves.astype(np.float32).tobytes()


def test_halves_that_are_refused() -> None:
    halves, floats = np.zeros(8, np.float16), np.zeros(8, np.float32)
    refused = [
        (
            halves.view(np.uint16),
            floats,
            "active",
            TypeError,
            "halves: got format 'H', expected a f",
        ),
        (
            halves,
            floats.view(np.int32),
            "active",
            TypeError,
            "floats: got format 'i', expected a f",
        ),
        (
            halves,
            floats[1:],
            "active",
            ValueError,
            r"floats: got shape \[7\], expected \[numbers\]",
        ),
        (halves[::2], floats[:4], "active", ValueError, "halves: got a strided array"),
        (unaligned(halves), floats, "active", ValueError, "halves: got an unaligned array"),
        (halves, floats, "sse9", ValueError, "level: got 'sse9'"),
    ]
    for a, b, level, error, message in refused:
        with pytest.raises(error, match=message):
            _kernels.floats_of_halves(a, b, level)
