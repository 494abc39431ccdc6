"""Bytes worked out by hand: a change here changes every stored feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitheads.engine.features import pack, reference
from bitheads.engine.features.codes import unpack

INF, NAN = np.inf, np.nan
# Two layers of one token, nine features; their plain sums are
#    2, -2, 0, -0, NaN, 1, inf, -1, 3
FIRST = [1.0, -3.0, 1.0, -0.0, NAN, -1.0, INF, 0.5, 1.0]
SECOND = [1.0, 1.0, -1.0, -0.0, 1.0, 2.0, 1.0, -1.5, 2.0]


def _f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    # 1 0 0 0  0 1 1 0 | 1 and seven trailing zeros
    "sign": ({"quantization": "sign"}, "86 80"),
    # Sums against 2 * threshold = 2, -3, -1, -1, 0, 1, 4, -2, 3: equal is not above.
    # 0 1 1 1  0 0 1 1 | 0
    "sign_thresholds": (
        {"quantization": "sign", "thresholds": _f32(1, -1.5, -0.5, -0.5, 0, 0.5, 2, -1, 1.5)},
        "73 00",
    ),
    # 2 * first - second = 1, -7, 3, 0, NaN, -4, inf, 2.5, 0
    # 1 0 1 0  0 0 1 1 | 0
    "sign_weights": ({"quantization": "sign", "layer_weights": _f32(2, -1)}, "A3 00"),
    # Votes 2, 1, 1, 0, 1, 1, 2, 1, 2 of 2; a single vote is a tie and takes the sign of the sum:
    # 1 0 0 0  0 1 1 0 | 1
    "vote": ({"quantization": "sign", "order": "sign_then_vote"}, "86 80"),
    # Means 1, -1, 0, -0, NaN, 0.5, inf, -0.5, 1.5, times 1 plus 2:
    # 3, 1, 2, 2, NaN, 2.5 (to even), inf, 1.5 (to even), 3.5 (to even)
    "uint8": (
        {
            "quantization": "uint8",
            "inverse_scale": np.ones(9, np.float32),
            "zero_point": np.full(9, 2, np.float32),
        },
        "03 01 02 02 00 02 FF 02 04",
    ),
    # The means 1, -1, 0, -0, NaN, 0.5, inf, -0.5, 1.5, low byte first; a NaN's bytes are free.
    "float16": (
        {"quantization": "float16"},
        "00 3C 00 BC 00 00 00 80 ** ** 00 38 00 7C 00 B8 00 3E",
    ),
}


@pytest.mark.parametrize("mode", GOLDEN)
def test_golden_bytes(level: str, mode: str) -> None:
    options, expected = GOLDEN[mode]
    layers = [_f32(*FIRST).reshape(1, 1, 9), _f32(*SECOND).reshape(1, 1, 9)]
    codes = np.zeros((1, len(expected.split())), np.uint8)
    arguments = (layers, np.array([1]), np.array([0]), codes)
    pack.pool_and_pack(*arguments, level=level, **options)
    assert _hex_like(codes, expected) == expected
    codes[:] = 0
    reference.pool_and_pack(*arguments, **options)
    assert _hex_like(codes, expected) == expected, "the reference itself"


def _hex_like(codes: np.ndarray, expected: str) -> str:
    """Hexadecimal bytes, with ** where `expected` has it: the bytes of a NaN."""
    pairs = zip(codes[0], expected.split(), strict=True)
    return " ".join("**" if wanted == "**" else f"{byte:02X}" for byte, wanted in pairs)


def test_vote_with_three_layers(level: str) -> None:
    """Two of three outvote a sum of the other sign; NaN does not vote."""
    layers = [_f32(*row).reshape(1, 1, 3) for row in ([1, -1, NAN], [1, -1, 1], [-9, 9, 1])]
    codes = np.zeros((1, 1), np.uint8)
    pack.pool_and_pack(
        layers,
        np.array([1]),
        np.array([0]),
        codes,
        quantization="sign",
        order="sign_then_vote",
        level=level,
    )
    assert codes.tolist() == [[0b10100000]]


def test_unpack_golden() -> None:
    np.testing.assert_array_equal(
        unpack(np.array([[0x86, 0x80]], np.uint8), 9, "sign"),
        [[1, -1, -1, -1, -1, 1, 1, -1, 1]],
    )
    np.testing.assert_array_equal(
        unpack(np.array([[0, 2, 255]], np.uint8), 3, "uint8", 0.5, -1.0), [[-1, 0, 126.5]]
    )
    halves = np.array([[0x00, 0x3C, 0x00, 0xB8]], np.uint8)
    np.testing.assert_array_equal(unpack(halves, 2, "float16"), [[1, -0.5]])
