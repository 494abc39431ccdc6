"""Wrong arguments: an error that says what, got, expected and the fix, and codes left alone."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from bitheads.engine import _kernels
from bitheads.engine.features import pack
from bitheads.engine.features.codes import unpack

ROWS, SEQ, DIM, NUM_LAYERS = 2, 3, 9, 2


def _good() -> dict[str, Any]:
    return {
        "layers": [np.ones((ROWS, SEQ, DIM), np.float32) for _ in range(NUM_LAYERS)],
        "lengths": np.array([2, 3]),
        "token_offsets": np.array([0, 2]),
        "codes": np.zeros((5, 2), np.uint8),
        "quantization": "sign",
    }


def _readonly(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _f32(size: int) -> np.ndarray:
    return np.ones(size, np.float32)


def _layers(*arrays: Any) -> dict[str, Any]:
    return {"layers": list(arrays)}


X = np.ones((ROWS, SEQ, DIM), np.float32)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no_layers": ({"layers": []}, ValueError, r"layers: got none, expected one"),
    "layer_not_an_array": (
        _layers(X, None),
        TypeError,
        r"layers\[1\]: got NoneType, expected",
    ),
    "layer_rank": (_layers(X[0]), ValueError, r"layers\[0\]: got shape \[3, 9\], expected \[rows"),
    "layer_shape": (
        _layers(X, X[:, :2]),
        ValueError,
        r"layers\[1\]: got shape \[2, 2, 9\], expected \[rows, seq, dim\] = \[2, 3, 9\]",
    ),
    "layer_dtype": (
        _layers(X.astype(np.float64)),
        TypeError,
        r"layers\[0\]: got format 'd', expected float32 or float16",
    ),
    "layer_byte_order": (_layers(X.astype(">f4")), TypeError, r"native byte order"),
    "mixed_dtypes": (_layers(X, X.astype(np.float16)), TypeError, r"layers\[1\]: .*one dtype"),
    "mixed_bfloat16": (_layers(X, X.astype(ml_dtypes.bfloat16)), TypeError, r"got bfloat16 and"),
    "float8": (_layers(X.astype(ml_dtypes.float8_e5m2)), TypeError, r"layers\[0\]: got"),
    "strided_features": (
        _layers(np.ones((ROWS, SEQ, 2 * DIM), np.float32)[:, :, ::2]),
        ValueError,
        r"layers\[0\]: got features 8 bytes apart, expected a contiguous last axis; pass",
    ),
    "reversed_features": (_layers(X[:, :, ::-1]), ValueError, r"features -4 bytes apart"),
    "zero_dim": (_layers(X[:, :, :0]), ValueError, r"dim: got 0, expected a positive"),
    "lengths_dtype": ({"lengths": np.array([2, 3], np.int32)}, TypeError, r"lengths: .*int64"),
    "lengths_list": ({"lengths": [2, 3]}, TypeError, r"lengths: got list, expected a NumPy"),
    "lengths_shape": ({"lengths": np.array([2])}, ValueError, r"lengths: got shape \[1\], .*\[2\]"),
    "lengths_strided": ({"lengths": np.arange(4)[::2]}, ValueError, r"lengths: got a strided"),
    "lengths_unaligned": (
        {"lengths": np.frombuffer(bytes(20), np.uint8)[1:17].view(np.int64)},
        ValueError,
        r"lengths: got an unaligned array",
    ),
    "length_over_seq": ({"lengths": np.array([2, 4])}, ValueError, r"lengths\[1\]: got 4, .* 3"),
    "length_negative": ({"lengths": np.array([-1, 3])}, ValueError, r"lengths\[0\]: got -1"),
    "offset_negative": ({"token_offsets": np.array([-1, 2])}, ValueError, r"token_offsets\[0\]: "),
    "offset_past_end": (
        {"token_offsets": np.array([0, 3])},
        ValueError,
        r"token_offsets\[1\]: got 3 for 3 tokens, expected all of them inside the 5 of codes",
    ),
    "offset_overflow": (
        {"token_offsets": np.array([0, 2**63 - 1])},
        ValueError,
        r"token_offsets\[1\]: got 9223372036854775807",
    ),
    "codes_dtype": ({"codes": np.zeros((5, 2), np.int8)}, TypeError, r"codes: .* a uint8 array"),
    "codes_width": (
        {"codes": np.zeros((5, 3), np.uint8)},
        ValueError,
        r"codes: got shape \[5, 3\], expected \[num_tokens, code_bytes\] = \[any, 2\]",
    ),
    "codes_strided": ({"codes": np.zeros((5, 4), np.uint8)[:, ::2]}, ValueError, r"C-contiguous"),
    "codes_read_only": (
        {"codes": _readonly(np.zeros((5, 2), np.uint8))},
        ValueError,
        r"codes: got a read-only array, expected a writable one",
    ),
    "quantization": ({"quantization": "int4"}, ValueError, r"quantization: got 'int4', expected s"),
    "order": ({"order": "vote"}, ValueError, r"order: got 'vote', expected pool_then_sign or"),
    "vote_without_sign": (
        {"quantization": "float16", "order": "sign_then_vote"},
        ValueError,
        r"order: got 'sign_then_vote' without signs",
    ),
    "vote_with_weights": (
        {"order": "sign_then_vote", "layer_weights": _f32(NUM_LAYERS)},
        ValueError,
        r"layer_weights: got weights with order 'sign_then_vote', expected none",
    ),
    "weights_shape": ({"layer_weights": _f32(3)}, ValueError, r"layer_weights: .*\[layers\] = \[2"),
    "weights_dtype": ({"layer_weights": np.ones(2)}, TypeError, r"layer_weights: .*float32"),
    "thresholds_shape": ({"thresholds": _f32(8)}, ValueError, r"thresholds: got shape \[8\]"),
    "thresholds_without_sign": (
        {"quantization": "float16", "thresholds": _f32(DIM)},
        ValueError,
        r"thresholds: got thresholds without signs",
    ),
    "uint8_without_calibration": (
        {"quantization": "uint8", "zero_point": _f32(DIM)},
        ValueError,
        r"inverse_scale, zero_point: got one or none",
    ),
    "calibration_without_uint8": (
        {"inverse_scale": _f32(DIM)},
        ValueError,
        r"inverse_scale, zero_point: got calibration without uint8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_a_message(name: str) -> None:
    change, error, message = BAD[name]
    arguments = {**_good(), **change}
    with pytest.raises(error, match=message):
        pack.pool_and_pack(**arguments)
    assert not arguments["codes"].any(), "a refused call must not write"


def test_good_arguments_pass() -> None:
    arguments = _good()
    pack.pool_and_pack(**arguments)
    assert arguments["codes"].tolist() == [[0xFF, 0x80]] * 5


def test_bfloat16_flag_wants_bit_patterns() -> None:
    good = _good()
    with pytest.raises(TypeError, match="with bfloat16=True, expected the bit patterns as uint16"):
        _kernels.pool_and_pack(
            good["layers"],
            True,
            good["lengths"],
            good["token_offsets"],
            good["codes"],
            "sign",
            "pool_then_sign",
        )


def test_code_bytes() -> None:
    sizes = {q: pack.code_bytes(9, q) for q in ("sign", "uint8", "float16")}
    assert sizes == {"sign": 2, "uint8": 9, "float16": 18}
    assert pack.code_bytes(1024, "sign") == 128
    with pytest.raises(ValueError, match="dim: got 0, expected a positive"):
        pack.code_bytes(0, "sign")
    with pytest.raises(ValueError, match="quantization: got 'bits'"):
        pack.code_bytes(8, "bits")


def test_unpack_refuses_what_does_not_fit() -> None:
    codes = np.zeros((1, 2), np.uint8)
    with pytest.raises(TypeError, match="codes: got int64, expected a uint8 array"):
        unpack(codes.astype(np.int64), 9, "sign")
    with pytest.raises(ValueError, match=r"codes: got shape \[1, 2\], expected \[tokens, 3\]"):
        unpack(codes, 17, "sign")
    with pytest.raises(ValueError, match="scale, offset: got None"):
        unpack(codes, 2, "uint8")
    with pytest.raises(ValueError, match=r"scale: got shape \[3\], expected one number or \[2\]"):
        unpack(codes, 2, "uint8", np.ones(3, np.float32), 0.0)
