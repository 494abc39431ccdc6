"""Calls of the kernels as `run_calls.cpp` reads them, and what the references say they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from head_cases import assert_same_bits
from kernel_cases import assert_same_codes, expected_codes
from numpy.typing import NDArray

from bitheads.engine.features import pack
from bitheads.engine.heads import reference as reference_heads
from bitheads.engine.heads.head_file import FoldedHead

DTYPES = ("float32", "float16", "bfloat16")
QUANTIZATIONS = ("sign", "uint8", "float16")
ORDERS = ("pool_then_sign", "sign_then_vote")
POOLINGS = ("attention", "mean", "cls", "last")


@dataclass(frozen=True, eq=False)
class Call:
    """What `run_calls` reads, how many bytes it answers, and a check of them at a level."""

    request: bytes
    answer_bytes: int
    check: Callable[[bytes, str], None]


def ints(*values: int) -> bytes:
    return np.array(values, "<i8").tobytes()


def array(values: NDArray[Any] | None) -> bytes:
    """Its number of bytes and they; -1 for None."""
    if values is None:
        return ints(-1)
    return ints(values.nbytes) + values.tobytes()


def layer_with_strides(layer: NDArray[Any]) -> bytes:
    """A layer [rows, seq, dim], its strides, and the memory from its lowest byte to its highest."""
    rows, seq, dim = layer.shape
    item = layer.dtype.itemsize
    row_stride, token_stride, item_stride = layer.strides
    if layer.size == 0:
        return ints(0, 0, 0) + array(np.zeros(0, np.uint8))
    assert item_stride == item or dim == 1
    steps = [(rows - 1) * row_stride, (seq - 1) * token_stride]
    before = -sum(min(step, 0) for step in steps)
    num_bytes = before + sum(max(step, 0) for step in steps) + dim * item
    memory = bytearray(num_bytes)
    copy = np.ndarray(layer.shape, layer.dtype, memory, before, (row_stride, token_stride, item))
    copy[...] = layer
    where = ints(row_stride, token_stride, before)
    return where + array(np.frombuffer(memory, np.uint8))


def pack_call(
    layers: list[NDArray[Any]],
    lengths: NDArray[np.int64],
    token_offsets: NDArray[np.int64],
    options: dict[str, Any],
    *,
    gap: int = 0,
    oddly: bool = False,
) -> Call:
    """`pool_and_pack`; `gap` tokens more of codes than are written, per row. `oddly`: from a thread
    that flushes subnormals and rounds up."""
    rows, _, dim = layers[0].shape
    quantization = options["quantization"]
    num_tokens = int(lengths.sum()) + gap * rows
    blank = np.full((num_tokens, pack.code_bytes(dim, quantization)), 0xA5, np.uint8)
    expected = expected_codes(layers, lengths, token_offsets, blank, options)
    request = pack_request(layers, lengths, token_offsets, options, num_tokens, oddly=oddly)
    mode = ", ".join(name for name in options if options[name] is not None)
    what = f"{layers[0].dtype}, m={len(layers)}, {layers[0].shape}, {quantization}, {mode}"

    def check(answer: bytes, level: str) -> None:
        got = np.frombuffer(answer, np.uint8).reshape(expected.shape)
        assert_same_codes(got, expected, quantization, f"{level}: {what}")

    return Call(request, expected.nbytes, check)


def pack_request(
    layers: list[NDArray[Any]],
    lengths: NDArray[np.int64],
    token_offsets: NDArray[np.int64],
    options: dict[str, Any],
    num_tokens: int,
    *,
    oddly: bool = False,
    times: int = 1,
) -> bytes:
    """What `run_calls` reads, for any number of calls of `pool_and_pack`."""
    rows, seq, dim = layers[0].shape
    quantization = options["quantization"]
    blank = np.full((num_tokens, pack.code_bytes(dim, quantization)), 0xA5, np.uint8)
    header = ints(
        len(layers), DTYPES.index(layers[0].dtype.name), rows, seq, dim,
        QUANTIZATIONS.index(quantization), ORDERS.index(options["order"]), num_tokens, oddly,
        times,
    )  # fmt: skip
    names = ("layer_weights", "thresholds", "inverse_scale", "zero_point")
    parts = [b"p", header, *map(layer_with_strides, layers), array(lengths), array(token_offsets)]
    return b"".join([*parts, *(array(options.get(name)) for name in names), array(blank)])


def heads_call(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    heads: Sequence[FoldedHead],
    *,
    oddly: bool = False,
) -> Call:
    """`lay_out_head` of each head and one `predict_heads` of all."""
    spec = heads[0].spec
    dim, quantization = spec.dim, spec.quantization.value
    texts = len(offsets) - 1
    expected = [
        reference_heads.predict_head(codes, offsets, dim, quantization, head) for head in heads
    ]

    def check(answer: bytes, level: str) -> None:
        sizes = [logits.size for logits in expected]
        parts = np.split(np.frombuffer(answer, np.float32), np.cumsum(sizes)[:-1])
        got = [part.reshape(logits.shape) for part, logits in zip(parts, expected, strict=True)]
        assert_same_bits(got, expected, f"{level}: {quantization}, dim {dim}, {texts} texts")

    request = heads_request(codes, offsets, heads, oddly=oddly)
    return Call(request, sum(logits.nbytes for logits in expected), check)


def heads_request(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    heads: Sequence[FoldedHead],
    *,
    oddly: bool = False,
    times: int = 1,
) -> bytes:
    """What `run_calls` reads, for any number of calls of `predict_heads`."""
    spec = heads[0].spec
    texts = len(offsets) - 1
    header = ints(
        QUANTIZATIONS.index(spec.quantization.value), spec.dim, len(codes), texts, len(heads),
        oddly, times,
    )  # fmt: skip
    parts = [b"h", header, array(codes), array(offsets)]
    for head in heads:
        attention_heads = 0 if head.query is None else len(head.query)
        pooling = POOLINGS.index(head.position_pooling.value)
        weights = (
            head.query, head.value, head.dense, head.dense_bias, head.output, head.output_bias,
        )  # fmt: skip
        parts += [ints(pooling, attention_heads, len(head.dense), len(head.output))]
        parts += map(array, weights)
    return b"".join(parts)


def halves_call(halves: NDArray[np.uint16]) -> Call:
    """`floats_of_halves`."""
    expected = halves.view("<f2").astype(np.float32)

    def check(answer: bytes, level: str) -> None:
        got = np.frombuffer(answer, np.float32)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected), err_msg=level)
        numbers = ~np.isnan(expected)
        bits = got.view(np.uint32)[numbers], expected.view(np.uint32)[numbers]
        np.testing.assert_array_equal(*bits, err_msg=level)

    request = b"f" + ints(len(halves)) + array(halves)
    return Call(request, expected.nbytes, check)
