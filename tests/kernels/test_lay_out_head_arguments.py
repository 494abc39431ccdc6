"""Wrong weights and sizes of a head that is to be laid out: what, got and expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from head_cases import (
    POOLINGS,
    aligned,
    lay_out,
    make_codes,
    make_head,
    moved,
    offsets_of,
    read_only,
    unaligned,
    weights_of,
)

from bitheads.engine import _kernels

DIM = 33
Change = Callable[[dict[str, Any]], Any]


def good_head(pooling: str = "attention") -> dict[str, Any]:
    """Arguments of `lay_out_head`, by name."""
    attends = pooling == "attention"
    head = make_head(0, "sign", DIM, pooling, attention_heads=3, inner=8)
    names = ("query", "value", "dense", "dense_bias", "output", "output_bias")
    weights = dict(zip(names, weights_of(head), strict=True))
    num_bytes = _kernels.head_bytes("sign", pooling, DIM, 3 if attends else 0, 8, 3)
    return {
        "head": aligned(num_bytes),
        "quantization": "sign",
        "position_pooling": pooling,
        **weights,
    }


def changed(name: str, index: tuple[int, ...], value: float) -> Change:
    """One weight of one array is another."""

    def change(call: dict[str, Any]) -> dict[str, Any]:
        array = call[name].copy()
        array[index] = value
        return {name: array}

    return change


TOO_LARGE = r"head: got weights that are not finite, or a row of more than 1e30 in all, expected"
NOT_SIZES = r"head: got dim .*, expected .* attention_heads that divide dim"
BAD_HEADS: dict[str, tuple[Change, type[Exception], str]] = {
    "nan_query": (changed("query", (2, 32), np.nan), ValueError, TOO_LARGE),
    "inf_value": (changed("value", (32, 32), np.inf), ValueError, TOO_LARGE),
    "nan_dense": (changed("dense", (7, 0), np.nan), ValueError, TOO_LARGE),
    "inf_dense_bias": (changed("dense_bias", (7,), -np.inf), ValueError, TOO_LARGE),
    "nan_output": (changed("output", (2, 7), np.nan), ValueError, TOO_LARGE),
    "nan_output_bias": (changed("output_bias", (2,), np.nan), ValueError, TOO_LARGE),
    "large_query": (changed("query", (2, 32), 1.1e30), ValueError, TOO_LARGE),
    "large_value": (changed("value", (32, 32), -1.1e30), ValueError, TOO_LARGE),
    "large_dense": (lambda c: {"dense": c["dense"] * 0 + np.float32(1e29)}, ValueError, TOO_LARGE),
    "large_output": (changed("output", (2, 7), 3e38), ValueError, TOO_LARGE),
    "heads_that_do_not_divide": (
        lambda call: {"query": np.ones((2, DIM), np.float32)},
        ValueError,
        NOT_SIZES,
    ),
    "no_heads": (lambda call: {"query": np.ones((0, DIM), np.float32)}, ValueError, NOT_SIZES),
    "no_classes": (
        lambda call: {"output": call["output"][:0], "output_bias": call["output_bias"][:0]},
        ValueError,
        NOT_SIZES,
    ),
    "float16": (lambda _: {"quantization": "float16"}, ValueError, NOT_SIZES),
    "quantization": (lambda _: {"quantization": "int4"}, ValueError, r"quantization: got 'int4'"),
    "pooling": (
        lambda _: {"position_pooling": "max"},
        ValueError,
        r"position_pooling: got 'max', expected attention, mean, cls or last",
    ),
    "no_query": (lambda _: {"query": None}, ValueError, r"query, value: got .* both with attenti"),
    "no_value": (lambda _: {"value": None}, ValueError, r"query, value: got .* both with attenti"),
    "query_without_attention": (
        lambda _: {"position_pooling": "mean"},
        ValueError,
        r"query, value: got .*, expected none without attention",
    ),
    "query_dtype": (
        lambda call: {"query": call["query"].astype(np.float64)},
        TypeError,
        r"query: got format 'd', expected a float32 array; convert it with astype",
    ),
    "value_shape": (
        lambda call: {"value": call["value"][:32]},
        ValueError,
        r"value: got shape \[32, 33\], expected \[dim, dim\] = \[33, 33\]",
    ),
    "query_shape": (
        lambda call: {"query": call["query"][:, :32].copy()},
        ValueError,
        r"query: got shape \[3, 32\], expected \[attention_heads, dim\] = \[any, 33\]",
    ),
    "dense_rank": (lambda call: {"dense": call["dense"][0]}, ValueError, r"dense: got shape"),
    "dense_strided": (
        lambda call: {"dense": np.asfortranarray(call["dense"])},
        ValueError,
        r"dense: got a strided array",
    ),
    "dense_unaligned": (
        lambda call: {"dense": unaligned(call["dense"])},
        ValueError,
        r"dense: got an unaligned array",
    ),
    "dense_bias_shape": (
        lambda call: {"dense_bias": call["dense_bias"][:7]},
        ValueError,
        r"dense_bias: got shape \[7\], expected \[inner\] = \[8\]",
    ),
    "output_shape": (
        lambda call: {"output": call["output"][:, :7].copy()},
        ValueError,
        r"output: got shape \[3, 7\], expected \[classes, inner\] = \[any, 8\]",
    ),
    "output_bias_shape": (
        lambda call: {"output_bias": call["output_bias"][:2]},
        ValueError,
        r"output_bias: got shape \[2\], expected \[classes\] = \[3\]",
    ),
    "head_size": (
        lambda call: {"head": call["head"][:-64]},
        ValueError,
        r"head: got shape \[\d+\], expected \[bytes\] = \[\d+\]",
    ),
    "head_unaligned": (
        lambda call: {"head": moved(call["head"], 32)},
        ValueError,
        r"head: got an array at no multiple of 64 bytes",
    ),
    "head_read_only": (
        lambda call: {"head": read_only(call["head"])},
        ValueError,
        r"head: got a read-only array, expected a writable one",
    ),
    "head_dtype": (
        lambda call: {"head": call["head"].view(np.float32)},
        TypeError,
        r"head: got format 'f', expected a uint8 array",
    ),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_head_that_is_refused(name: str) -> None:
    change, error, message = BAD_HEADS[name]
    call = good_head()
    call.update(change(call))
    with pytest.raises(error, match=message):
        _kernels.lay_out_head(**call)


@pytest.mark.parametrize("name", ["inf_dense_bias", "nan_output", "large_value"])
def test_a_block_that_was_refused_half_way_is_no_head(name: str) -> None:
    call = good_head()
    _kernels.lay_out_head(**call)  # what an earlier head left there is no excuse
    call.update(BAD_HEADS[name][0](call))
    with pytest.raises(ValueError, match="head: got weights"):
        _kernels.lay_out_head(**call)
    codes, offsets = make_codes(0, "sign", DIM, 1), offsets_of([1])
    with pytest.raises(ValueError, match=r"heads\[0\]: got .* that are no head"):
        _kernels.predict_heads_workspace(codes, offsets, DIM, "sign", [call["head"]])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_good_heads_pass(pooling: str) -> None:
    call = good_head(pooling)
    _kernels.lay_out_head(**call)
    same = lay_out(make_head(0, "sign", DIM, pooling, attention_heads=3, inner=8))
    assert np.array_equal(call["head"], same), "what was in the block before does not matter"


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 1, 8, 3),
        (65537, 1, 8, 3),
        (33, 2, 8, 3),
        (33, 0, 8, 3),
        (33, -1, 8, 3),
        (33, 66, 8, 3),
        (33, 1, 0, 3),
        (33, 1, 65537, 3),
        (33, 1, 8, 0),
        (33, 1, 8, 2**62),
    ],
)
def test_sizes_that_are_refused(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=NOT_SIZES):
        _kernels.head_bytes("sign", "attention", *sizes)


def test_attention_heads_without_attention_are_refused() -> None:
    with pytest.raises(ValueError, match=NOT_SIZES):
        _kernels.head_bytes("sign", "mean", DIM, 1, 8, 3)


def test_a_head_takes_about_two_bytes_a_weight() -> None:
    num_bytes = _kernels.head_bytes("uint8", "attention", 1024, 16, 1024, 3)
    assert 1 <= num_bytes / (2 * (1024 * 1024 * 2 + 1024 * (16 + 3))) < 1.05
    assert num_bytes % 64 == 0
