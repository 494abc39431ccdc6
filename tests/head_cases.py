"""Heads, codes and calls for the tests of `predict_heads` and its reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import (
    FeatureSpec,
    LayerPooling,
    Order,
    PositionPooling,
    Quantization,
    _kernels,
)
from bitheads.engine.features import pack
from bitheads.engine.heads import reference as reference_heads
from bitheads.engine.heads.head_file import FoldedHead

Bytes = NDArray[np.uint8]

POOLINGS = ("attention", "mean", "cls", "last")
QUANTIZATIONS = ("sign", "uint8")


def make_spec(quantization: str = "sign", dim: int = 64) -> FeatureSpec:
    return FeatureSpec(
        encoder="tiny",
        weights_sha256="0" * 64,
        layers=(2, 3),
        layer_pooling=LayerPooling.MEAN,
        quantization=Quantization(quantization),
        order=Order.POOL_THEN_SIGN,
        dim=dim,
    )


def make_head(
    seed: int,
    quantization: str,
    dim: int,
    pooling: str = "attention",
    *,
    attention_heads: int = 1,
    inner: int | None = None,
    classes: int = 3,
    sharpness: float = 3.0,
) -> FoldedHead:
    """Random weights; scores have a standard deviation near `sharpness` / 2 over tokens."""
    rng = np.random.default_rng(seed)
    inner = dim if inner is None else inner
    code_size = 128 if quantization == "uint8" else 1
    attends = pooling == "attention"

    def draw(*shape: int, scale: float) -> NDArray[np.float32]:
        return (rng.normal(0, scale, shape)).astype(np.float32)

    return FoldedHead(
        task=f"task-{seed}",
        labels=tuple(f"label-{i}" for i in range(classes)),
        form="single",
        position_pooling=PositionPooling(pooling),
        spec=make_spec(quantization, dim),
        query=draw(attention_heads, dim, scale=sharpness * dim**-0.5 / code_size)
        if attends
        else None,
        value=draw(dim, dim, scale=2 * dim**-0.5 / code_size) if attends else None,
        dense=draw(inner, dim, scale=2 * dim**-0.5 / (1 if attends else code_size)),
        dense_bias=draw(inner, scale=0.3),
        output=draw(classes, inner, scale=2 * inner**-0.5),
        output_bias=draw(classes, scale=0.3),
    )


def make_codes(seed: int, quantization: str, dim: int, tokens: int) -> NDArray[np.uint8]:
    """uint8 [tokens, code_bytes]: any bytes, so of signs the trailing bits, too."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (tokens, pack.code_bytes(dim, quantization)), dtype=np.uint8)


def offsets_of(lengths: Sequence[int], first: int = 0) -> NDArray[np.int64]:
    """int64 [texts + 1]."""
    return np.cumsum([first, *lengths])


class HeadSizes(NamedTuple):
    """What heads of one dim and quantization may differ in. `attention_heads` 0: no attention."""

    pooling: str = "attention"
    attention_heads: int = 1
    inner: int = 8
    classes: int = 3


def mixed_sizes(count: int, attention_heads: int = 2) -> tuple[HeadSizes, ...]:
    """Every pooling, and inner sizes and classes of many kinds."""
    kinds = ("attention", "mean", "attention", "cls", "attention", "last")
    inner, classes = (8, 17, 1, 40, 33), (3, 2, 17)
    return tuple(
        HeadSizes(kinds[i % 6], attention_heads * (1 - i % 2), inner[i % 5], classes[i % 3])
        for i in range(count)
    )


@dataclass(frozen=True, eq=False)
class Case:
    """A call of `predict_heads` and the logits [texts, classes] it must give, one array a head."""

    quantization: str
    dim: int
    codes: Bytes
    offsets: NDArray[np.int64]
    blocks: list[Bytes]
    expected: list[NDArray[np.float32]]


def make_case(codes: Bytes, offsets: NDArray[np.int64], heads: Sequence[FoldedHead]) -> Case:
    dim, quantization = heads[0].spec.dim, heads[0].spec.quantization.value
    expected = [
        reference_heads.predict_head(codes, offsets, dim, quantization, head) for head in heads
    ]
    return Case(quantization, dim, codes, offsets, [lay_out(head) for head in heads], expected)


@cache
def random_case(
    quantization: str, dim: int, sizes: tuple[HeadSizes, ...], lengths: tuple[int, ...]
) -> Case:
    """The same case for the same arguments, made once: every level is compared with it."""
    heads = [
        make_head(
            seed,
            quantization,
            dim,
            one.pooling,
            attention_heads=one.attention_heads,
            inner=one.inner,
            classes=one.classes,
            sharpness=(3.0, 0.01, 30.0)[seed % 3],
        )
        for seed, one in enumerate(sizes)
    ]
    return make_case(make_codes(0, quantization, dim, sum(lengths)), offsets_of(lengths), heads)


def aligned(num_bytes: int, shift_bytes: int = 0) -> Bytes:
    """uint8 [num_bytes] at a multiple of 64, or `shift_bytes` after one."""
    memory = np.empty(num_bytes + 64 + shift_bytes, np.uint8)
    start = -memory.ctypes.data % 64 + shift_bytes
    return memory[start : start + num_bytes]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory."""
    view = array[:]
    view.flags.writeable = False
    return view


def moved(block: Bytes, shift_bytes: int = 0) -> Bytes:
    """A copy at a multiple of 64 bytes, or `shift_bytes` after one."""
    copy = aligned(block.size, shift_bytes)
    copy[:] = block
    return copy


def unaligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy one byte after a multiple of its items."""
    memory = aligned(array.nbytes, 1)
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@contextmanager
def guarded(num_bytes: int, fill: int = 0xFF) -> Iterator[Bytes]:
    """Aligned bytes full of `fill`; those before and after must not have changed in the end."""
    memory = aligned(num_bytes + 128)
    memory[:] = fill
    memory[:64] = memory[64 + num_bytes :] = 0xA5
    yield memory[64 : 64 + num_bytes]
    assert (memory[:64] == 0xA5).all(), "wrote before the array"
    assert (memory[64 + num_bytes :] == 0xA5).all(), "wrote past the array"


def lay_out(head: FoldedHead) -> Bytes:
    """The block that `predict_heads` reads; checks that nothing around it was written."""
    attention_heads = 0 if head.query is None else len(head.query)
    quantization, pooling = head.spec.quantization.value, head.position_pooling.value
    num_bytes = _kernels.head_bytes(
        quantization, pooling, head.spec.dim, attention_heads, len(head.dense), len(head.output)
    )
    with guarded(num_bytes) as block:
        _kernels.lay_out_head(block, quantization, pooling, *weights_of(head))
    return block


def weights_of(head: FoldedHead) -> tuple[NDArray[np.float32] | None, ...]:
    """In the order of `_kernels.lay_out_head`."""
    return (
        head.query,
        head.value,
        head.dense,
        head.dense_bias,
        head.output,
        head.output_bias,
    )


def predict(
    case: Case,
    level: str,
    *,
    texts: slice = slice(None),
    heads: slice = slice(None),
    workspace_fill: int = 0xFF,
) -> list[NDArray[np.float32]]:
    """The logits of some texts and heads; checks that nothing else was written."""
    blocks = case.blocks[heads]
    first, last, _ = texts.indices(len(case.offsets) - 1)
    offsets = case.offsets[first : last + 1]
    arguments = (case.codes, offsets, case.dim, case.quantization, blocks)
    before = [block.copy() for block in blocks]
    classes = [expected.shape[1] for expected in case.expected[heads]]
    # One array holds all logits, with a guard of 16 floats around each.
    sizes = [16 + (last - first) * c for c in classes]
    ends = np.cumsum(sizes)
    room = np.full(sum(sizes) + 16, np.nan, np.float32)
    guard = np.ones(len(room), bool)
    logits = []
    for end, size, count in zip(ends, sizes, classes, strict=True):
        guard[end - size + 16 : end] = False
        logits.append(room[end - size + 16 : end].reshape(last - first, count))
    with guarded(_kernels.predict_heads_workspace(*arguments), workspace_fill) as workspace:
        _kernels.predict_heads(*arguments, logits, workspace, level)
    assert np.isnan(room[guard]).all(), "wrote outside the logits"
    assert all(map(np.array_equal, blocks, before)), "wrote to a head"
    return [array.copy() for array in logits]


def assert_same_bits(
    got: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]], what: str = ""
) -> None:
    assert len(got) == len(expected)
    for i, (one, wanted) in enumerate(zip(got, expected, strict=True)):
        assert one.dtype == wanted.dtype == np.float32
        same = one.view(np.uint32) == wanted.view(np.uint32)
        if not same.all():
            texts, classes = np.nonzero(~same)
            raise AssertionError(
                f"{what}: head {i}: {len(texts)} of {same.size} logits differ, first of text "
                f"{texts[0]}, class {classes[0]}: got {one[texts[0], classes[0]]!r}, expected "
                f"{wanted[texts[0], classes[0]]!r}"
            )


def check(case: Case, level: str, what: str = "") -> None:
    """The kernel at this level gives the bits of the reference."""
    assert_same_bits(predict(case, level), case.expected, f"{level}, dim {case.dim}, {what}")
