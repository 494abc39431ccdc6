"""packed_attention_pool, its source run on the host, against attention in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from host_heads import AttentionPoolArgs, HostHeads, aligned
from host_kernels import HostKernels, RefusedError
from kernel_cases import GuardedMemory
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

QUANTIZATIONS = ("sign", "uint8", "float16")
DIMS = (1, 7, 33, 100, 384, 1024, 1536)
LENGTHS = (0, 1, 2, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 300)
# SPEC.md's: 2^-11 from rounding what is stored, the rest from scores and weights.
TOLERANCE = 1e-3
ONE_TOKEN_ONLY = np.float32(1e30)


@pytest.fixture(scope="module")
def heads(host_kernels: HostKernels) -> HostHeads:
    return HostHeads(host_kernels)


def make_codes(
    rng: np.random.Generator, tokens: int, dim: int, quantization: str
) -> NDArray[np.uint8]:
    if quantization == "sign":
        return np.packbits(rng.random((tokens, dim)) < 0.5, axis=1)
    if quantization == "uint8":
        return rng.integers(0, 256, (tokens, dim)).astype(np.uint8)
    return rng.normal(0, 1, (tokens, dim)).astype(np.float16).view(np.uint8)


def values_of(codes: NDArray[np.uint8], dim: int, quantization: str) -> FloatArray:
    """The numbers that codes are: float64 [tokens, dim]."""
    if quantization == "sign":
        return np.unpackbits(codes, axis=1, count=dim).astype(np.float64)
    if quantization == "uint8":
        return codes.astype(np.float64)
    return codes.view(np.float16).astype(np.float64)


def make_queries(
    rng: np.random.Generator, columns: int, values: FloatArray, spread: float
) -> NDArray[np.float32]:
    """float32 [columns, dim]: scores go from about -spread to +spread, whatever the codes."""
    queries = rng.normal(0, 1, (columns, values.shape[1]))
    scores = values @ queries.T
    sizes = np.abs(scores - scores.mean(axis=0)).max(axis=0)
    return (queries * spread / np.maximum(sizes, 1e-9)[:, np.newaxis]).astype(np.float32)


def offsets_of(lengths: Any) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def attend(
    values: FloatArray,
    offsets: NDArray[np.int64],
    queries: NDArray[np.float32],
    end_bias: NDArray[np.float32],
) -> FloatArray:
    """The meaning: float64 [texts, columns, dim]. end_bias: float32 [columns, 2]."""
    pooled = np.zeros((len(offsets) - 1, *queries.shape))
    for text, (start, stop) in enumerate(pairwise(offsets)):
        if start == stop:
            continue
        scores = values[start:stop] @ queries.astype(np.float64).T
        scores[0] += end_bias[:, 0]
        scores[-1] += end_bias[:, 1]
        weights = np.exp(scores - scores.max(axis=0))
        pooled[text] = (weights / weights.sum(axis=0)).T @ values[start:stop]
    return pooled


def check(
    heads: HostHeads,
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    queries: NDArray[np.float32],
    quantization: str,
    end_bias: NDArray[np.float32] | None = None,
) -> NDArray[np.float16]:
    """Compares with `attend`, padding included; returns the pooled codes."""
    columns, dim = queries.shape
    bias = np.zeros((columns, 2), np.float32) if end_bias is None else end_bias
    laid_out = heads.lay_out_queries(queries, quantization)
    got = heads.attention_pool(codes, offsets, laid_out, bias, dim=dim, quantization=quantization)
    values = values_of(codes, dim, quantization)
    expected = attend(values, offsets, queries, bias)
    code_range = {"sign": 1, "uint8": 255, "float16": np.abs(values).max(initial=1)}[quantization]
    error = np.abs(got[..., :dim] - expected).max(initial=0) / code_range
    assert error <= TOLERANCE, error
    assert (got[..., dim:].view(np.uint16) == 0).all()
    return got


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("dim", DIMS)
def test_attends_like_float64(heads: HostHeads, dim: int, quantization: str) -> None:
    """Every length in one call; a column each of the mean, the first token, the last token,
    extreme scores, and scores with something to both ends'."""
    rng = np.random.default_rng(dim)
    offsets = offsets_of(rng.permutation(LENGTHS))
    codes = aligned(make_codes(rng, int(offsets[-1]), dim, quantization))
    values = values_of(codes, dim, quantization)
    queries = make_queries(rng, 6, values, 4)
    queries[:3] = 0
    queries[3:4] = make_queries(rng, 1, values, 80)
    bias = np.zeros((6, 2), np.float32)
    bias[1, 0] = bias[2, 1] = ONE_TOKEN_ONLY
    bias[4] = 1.5, -2.5
    got = check(heads, codes, offsets, queries, quantization, bias)
    texts = np.diff(offsets) > 0
    np.testing.assert_array_equal(got[texts, 1, :dim], values[offsets[:-1][texts]])
    np.testing.assert_array_equal(got[texts, 2, :dim], values[offsets[1:][texts] - 1])


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 31, 32, 33, 40])
def test_any_number_of_columns(heads: HostHeads, columns: int, quantization: str) -> None:
    rng = np.random.default_rng(columns)
    offsets = offsets_of([5, 40])
    codes = make_codes(rng, 45, 65, quantization)
    check(
        heads,
        codes,
        offsets,
        make_queries(rng, columns, values_of(codes, 65, quantization), 9),
        quantization,
    )


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("spread", [1e-30, 0.1, 20, 80, 1000])
def test_any_scores(heads: HostHeads, spread: float, quantization: str) -> None:
    rng = np.random.default_rng(1)
    offsets = offsets_of([100, 90])
    codes = make_codes(rng, 190, 384, quantization)
    queries = make_queries(rng, 3, values_of(codes, 384, quantization), spread)
    check(heads, codes, offsets, queries, quantization)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("spread", [0, 5])
def test_a_long_text(heads: HostHeads, spread: float, quantization: str) -> None:
    """Tensor cores cut sums off, always towards zero: the error grows with the tokens."""
    rng = np.random.default_rng(7)
    codes = make_codes(rng, 8192, 9, quantization)
    queries = make_queries(rng, 2, values_of(codes, 9, quantization), spread)
    check(heads, codes, offsets_of([8192]), queries, quantization)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_numbers_of_very_different_sizes(heads: HostHeads, quantization: str) -> None:
    """Queries of other magnitudes beside each other, and within one query."""
    rng = np.random.default_rng(2)
    offsets = offsets_of([70])
    codes = make_codes(rng, 70, 100, quantization)
    queries = make_queries(rng, 6, values_of(codes, 100, quantization), 5)
    queries[0] *= np.float32(1e-35)
    queries[1] *= np.float32(1e-8)
    queries[2, ::3] *= np.float32(1e-6)
    queries[3, 1:] = np.float32(1e-45)
    queries[4] = np.float32(1e-45)
    check(heads, codes, offsets, queries, quantization)
    # Scores beyond any softmax: the best token takes it all.
    queries = make_queries(rng, 2, values_of(codes, 100, quantization), 5) * np.float32(1e25)
    check(heads, codes, offsets, queries, quantization)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2.0**118])
def test_refuses_queries_without_a_scale(heads: HostHeads, wrong: float) -> None:
    queries = np.full((3, 40), 0.5, np.float32)
    queries[1, 7] = wrong
    with pytest.raises(RefusedError, match="1"):
        heads.lay_out_queries(queries, "uint8")


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("dim", [33, 128, 1152])
def test_any_address(heads: HostHeads, dim: int, quantization: str) -> None:
    """Codes loaded in 16 bytes or one by one: the same bits."""
    rng = np.random.default_rng(dim)
    offsets = offsets_of([9, 3])
    codes = make_codes(rng, 12, dim, quantization)
    queries = make_queries(rng, 2, values_of(codes, dim, quantization), 5)
    got = [
        check(heads, aligned(codes, shift_bytes), offsets, queries, quantization)
        for shift_bytes in (0, 1, 2, 4, 8)
        if shift_bytes % 2 == 0 or quantization != "float16"
    ]
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.uint16), other.view(np.uint16))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("end", [True, False])
def test_stays_between_forbidden_pages(heads: HostHeads, quantization: str, end: bool) -> None:
    rng = np.random.default_rng(3)

    def guarded(array: NDArray[Any]) -> NDArray[Any]:
        memory = GuardedMemory(array.nbytes)
        return memory.at_end(array) if end else memory.at_start(array)

    for dim in (1, 9, 128, 200):
        codes = make_codes(rng, 20, dim, quantization)
        queries = make_queries(rng, 3, values_of(codes, dim, quantization), 5)
        check(heads, guarded(codes), guarded(offsets_of([17, 0, 3])), queries, quantization)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("dim", [100, 1152])
def test_a_text_is_the_same_alone(heads: HostHeads, dim: int, quantization: str) -> None:
    """Whatever lies before and behind it, and whichever columns are pooled beside."""
    rng = np.random.default_rng(4)
    lengths = np.array([3, 70, 0, 20])
    offsets = offsets_of(lengths)
    codes = make_codes(rng, int(offsets[-1]), dim, quantization)
    queries = make_queries(rng, 18, values_of(codes, dim, quantization), 30)
    together = check(heads, codes, offsets, queries, quantization).view(np.uint16)
    for text, (start, stop) in enumerate(pairwise(offsets)):
        alone = check(
            heads, aligned(codes[start:stop], 2), offsets_of([stop - start]), queries, quantization
        )
        np.testing.assert_array_equal(alone[0].view(np.uint16), together[text])
    some = check(heads, codes, offsets, queries[[17, 3]], quantization).view(np.uint16)
    np.testing.assert_array_equal(some, together[:, [17, 3]])


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_order_of_threads_does_not_matter(
    host_kernels: HostKernels, heads: HostHeads, quantization: str
) -> None:
    """A missing barrier shows in one of two orders, see tests/cuda/host/block.h."""
    rng = np.random.default_rng(5)
    offsets = offsets_of([130, 5])
    codes = make_codes(rng, 135, 1152, quantization)
    queries = make_queries(rng, 2, values_of(codes, 1152, quantization), 10)
    forward = check(heads, codes, offsets, queries, quantization)
    host_kernels.run_in_reverse(True)
    try:
        backward = check(heads, codes, offsets, queries, quantization)
    finally:
        host_kernels.run_in_reverse(False)
    np.testing.assert_array_equal(forward.view(np.uint16), backward.view(np.uint16))


@pytest.mark.parametrize(("lengths", "columns"), [([], 3), ([0, 0], 3), ([4], 0)])
def test_nothing_to_pool(heads: HostHeads, lengths: list[int], columns: int) -> None:
    rng = np.random.default_rng(6)
    codes = make_codes(rng, sum(lengths), 40, "sign")
    queries = rng.normal(0, 1, (columns, 40)).astype(np.float32)
    got = check(heads, codes, offsets_of(lengths), queries, "sign")
    assert (got.view(np.uint16) == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"texts": -1},
        {"texts": 2**31},
        {"columns": 65535 * 16 + 1},
        {"dim": 0},
        {"dim": 65535 * 1024 + 1},
        {"quantization": 3},
        {"queries": 8},
        {"pooled": 4},
    ],
)
def test_refuses_what_one_launch_cannot_do(heads: HostHeads, wrong: dict[str, int]) -> None:
    right = {"texts": 0, "columns": 1, "dim": 1}
    heads.launch(AttentionPoolArgs(**right))
    with pytest.raises(RefusedError, match="1"):
        heads.launch(AttentionPoolArgs(**{**right, **wrong}))
