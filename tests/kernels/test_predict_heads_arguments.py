"""Wrong arguments of `predict_heads`: what, got and expected, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from head_cases import Case, HeadSizes, aligned, moved, random_case, read_only, unaligned

from bitheads.engine import _kernels

DIM, TEXTS = 33, 2
SIZES = (HeadSizes("attention", 3, 8, 3), HeadSizes("mean", 0, 5, 2))
Change = Callable[[dict[str, Any]], Any]


def case() -> Case:
    return random_case("sign", DIM, SIZES, (3, 2))


def good_call() -> dict[str, Any]:
    """Arguments of `predict_heads`, by name."""
    sound = case()
    call = {
        "codes": sound.codes,
        "offsets": sound.offsets,
        "dim": DIM,
        "quantization": "sign",
        "heads": list(sound.blocks),
    }
    num_bytes = _kernels.predict_heads_workspace(**call)
    logits = [np.zeros((TEXTS, one.classes), np.float32) for one in SIZES]
    return {**call, "logits": logits, "workspace": aligned(num_bytes)}


def with_byte(block: np.ndarray, index: int) -> np.ndarray:
    changed = moved(block, 0)
    changed[index] ^= 0x55
    return changed


def block_of(quantization: str, dim: int) -> np.ndarray:
    return random_case(quantization, dim, SIZES[1:], ()).blocks[0]


def long_text(tokens: int) -> dict[str, Any]:
    codes = np.zeros((tokens, (DIM + 7) // 8), np.uint8)
    return {"codes": codes, "offsets": np.array([0, 1, tokens])}


# name: (what changes, given the good arguments; the error; its message)
BAD: dict[str, tuple[Change, type[Exception], str]] = {
    "codes_dtype": (
        lambda call: {"codes": call["codes"].view(np.int8)},
        TypeError,
        r"codes: got format 'b', expected a uint8 array",
    ),
    "codes_width": (
        lambda call: {"codes": call["codes"][:, :4].copy()},
        ValueError,
        r"codes: got shape \[5, 4\], expected \[tokens, code_bytes\] = \[any, 5\]",
    ),
    "codes_rank": (lambda call: {"codes": call["codes"].ravel()}, ValueError, r"codes: got shape"),
    "codes_strided": (
        lambda call: {"codes": np.repeat(call["codes"], 2, axis=0)[::2]},
        ValueError,
        r"codes: got a strided array, expected a C-contiguous one",
    ),
    "codes_list": (lambda _: {"codes": [[0]]}, TypeError, r"codes: got list, expected a NumPy"),
    "offsets_dtype": (
        lambda call: {"offsets": call["offsets"].astype(np.int32)},
        TypeError,
        r"offsets: got format .*int64 array; convert it",
    ),
    "offsets_rank": (
        lambda call: {"offsets": call["offsets"][np.newaxis]},
        ValueError,
        r"offsets: got shape \[1, 3\], expected \[texts \+ 1\]",
    ),
    "offsets_none": (
        lambda _: {"offsets": np.zeros(0, np.int64), "logits": []},
        ValueError,
        r"offsets: got none, expected one more than there are texts",
    ),
    "offsets_strided": (
        lambda call: {"offsets": np.repeat(call["offsets"], 2)[::2]},
        ValueError,
        r"offsets: got a strided array",
    ),
    "offsets_unaligned": (
        lambda call: {"offsets": unaligned(call["offsets"])},
        ValueError,
        r"offsets: got an unaligned array",
    ),
    "empty_text": (
        lambda _: {"offsets": np.array([0, 3, 3])},
        ValueError,
        r"offsets\[1:\]: got 3, 3, expected 1 to 16384 tokens a text",
    ),
    "decreasing_offsets": (
        lambda _: {"offsets": np.array([0, 3, 1])},
        ValueError,
        r"offsets\[1:\]: got 3, 1",
    ),
    "negative_offset": (
        lambda _: {"offsets": np.array([-1, 3, 5])},
        ValueError,
        r"offsets\[0:\]: got -1, 3",
    ),
    "offset_past_the_codes": (
        lambda _: {"offsets": np.array([0, 3, 6])},
        ValueError,
        r"offsets\[1:\]: got 3, 6, expected .* inside the 5 of codes",
    ),
    "offset_overflow": (
        lambda _: {"offsets": np.array([0, 3, 2**63 - 1])},
        ValueError,
        r"offsets\[1:\]: got 3, 9223372036854775807",
    ),
    "text_too_long": (
        lambda _: long_text(1 + 16385),
        ValueError,
        r"offsets\[1:\]: got 1, 16386, expected 1 to 16384 tokens",
    ),
    "zero_dim": (lambda _: {"dim": 0}, ValueError, r"dim: got 0"),
    "negative_dim": (lambda _: {"dim": -1}, ValueError, r"dim: got -1"),
    "float16": (
        lambda call: {"quantization": "float16", "codes": np.zeros((5, 66), np.uint8)},
        ValueError,
        r"quantization: got 'float16', expected sign or uint8",
    ),
    "quantization": (lambda _: {"quantization": "int4"}, ValueError, r"quantization: got 'int4'"),
    "head_dtype": (
        lambda call: {"heads": [call["heads"][0], call["heads"][1].view(np.float32)]},
        TypeError,
        r"heads\[1\]: got format 'f', expected a uint8 array",
    ),
    "head_rank": (
        lambda call: {"heads": [call["heads"][0][np.newaxis], call["heads"][1]]},
        ValueError,
        r"heads\[0\]: got shape",
    ),
    "head_unaligned": (
        lambda call: {"heads": [call["heads"][0], moved(call["heads"][1], 32)]},
        ValueError,
        r"heads\[1\]: got an array at no multiple of 64 bytes",
    ),
    "head_of_another_dim": (
        lambda call: {"heads": [call["heads"][0], block_of("sign", 34)]},
        ValueError,
        r"heads\[1\]: got a head for other codes, of dim 34, expected one .* dim 33",
    ),
    "head_of_another_quantization": (
        lambda call: {"heads": [call["heads"][0], block_of("uint8", DIM)]},
        ValueError,
        r"heads\[1\]: got a head for other codes",
    ),
    "head_truncated": (
        lambda call: {"heads": [call["heads"][0][:-64], call["heads"][1]]},
        ValueError,
        r"heads\[0\]: got \d+ bytes that are no head, expected what lay_out_head wrote",
    ),
    "head_with_more": (
        lambda call: {"heads": [np.append(call["heads"][0], aligned(64)), call["heads"][1]]},
        ValueError,
        r"heads\[0\]: got",
    ),
    "head_of_a_few_bytes": (
        lambda call: {"heads": [call["heads"][0][:8], call["heads"][1]]},
        ValueError,
        r"heads\[0\]: got 8 bytes that are no head",
    ),
    "head_of_no_bytes": (
        lambda call: {"heads": [call["heads"][0][:0], call["heads"][1]]},
        ValueError,
        r"heads\[0\]: got 0 bytes that are no head",
    ),
    "head_not_laid_out": (
        lambda call: {"heads": [call["heads"][0], 0 * moved(call["heads"][1], 0)]},
        ValueError,
        r"heads\[1\]: got",
    ),
    "head_of_garbage": (
        lambda call: {"heads": [with_byte(call["heads"][0], 0), call["heads"][1]]},
        ValueError,
        r"heads\[0\]: got",
    ),
    "logits_count": (
        lambda call: {"logits": call["logits"][:1]},
        ValueError,
        r"logits: got 1 arrays, expected one a head, 2",
    ),
    "logits_shape": (
        lambda call: {"logits": [call["logits"][0], np.zeros((TEXTS, 3), np.float32)]},
        ValueError,
        r"logits\[1\]: got shape \[2, 3\], expected \[texts, classes\] = \[2, 2\]",
    ),
    "logits_dtype": (
        lambda call: {"logits": [call["logits"][0].astype(np.float64), call["logits"][1]]},
        TypeError,
        r"logits\[0\]: got format 'd', expected a float32 array",
    ),
    "logits_strided": (
        lambda call: {"logits": [np.zeros((3, TEXTS), np.float32).T, call["logits"][1]]},
        ValueError,
        r"logits\[0\]: got a strided array",
    ),
    "logits_read_only": (
        lambda call: {"logits": [call["logits"][0], read_only(call["logits"][1])]},
        ValueError,
        r"logits\[1\]: got a read-only array, expected a writable one",
    ),
    "logits_unaligned": (
        lambda call: {"logits": [unaligned(call["logits"][0]), call["logits"][1]]},
        ValueError,
        r"logits\[0\]: got an unaligned array",
    ),
    "workspace_too_small": (
        lambda call: {"workspace": call["workspace"][:-1]},
        ValueError,
        r"workspace: got \d+ bytes, expected \d+, see predict_heads_workspace",
    ),
    "workspace_unaligned": (
        lambda call: {"workspace": aligned(call["workspace"].size, 32)},
        ValueError,
        r"workspace: got an array at no multiple of 64 bytes",
    ),
    "workspace_read_only": (
        lambda call: {"workspace": read_only(call["workspace"])},
        ValueError,
        r"workspace: got a read-only array",
    ),
    "workspace_dtype": (
        lambda call: {"workspace": call["workspace"].view(np.int8)},
        TypeError,
        r"workspace: got format 'b', expected a uint8 array",
    ),
    "level": (lambda _: {"level": "sse9"}, ValueError, r"level: got 'sse9', expected active"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_a_message(name: str) -> None:
    change, error, message = BAD[name]
    call = good_call()
    call.update(change(call))
    with pytest.raises(error, match=message):
        _kernels.predict_heads(**call)
    assert not any(array.any() for array in call["logits"]), "a refused call must not write"


OF_THE_WORKSPACE = [name for name in BAD if not name.startswith(("logits", "workspace", "level"))]


@pytest.mark.parametrize("name", OF_THE_WORKSPACE)
def test_refused_when_asked_for_the_workspace(name: str) -> None:
    change, error, message = BAD[name]
    call = good_call()
    call.update(change(call))
    with pytest.raises(error, match=message):
        _kernels.predict_heads_workspace(
            *(call[n] for n in ("codes", "offsets", "dim", "quantization", "heads"))
        )


def test_good_arguments_pass() -> None:
    call = good_call()
    _kernels.predict_heads(**call)
    for got, expected in zip(call["logits"], case().expected, strict=True):
        np.testing.assert_array_equal(got, expected)
