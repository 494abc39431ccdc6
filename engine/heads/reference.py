"""What `predict_heads` computes, in NumPy: slow, plain, and the meaning every kernel is held to.

`kernels/SPEC.md` (predict_heads) says the same in words. Each float32 operation below rounds once.
Sums of integers are exact wherever they are computed, here as float64 products of matrices: all
of them stay far below 2^53. Sums of floats are in order, from the first to the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.heads.head_file import FoldedHead, PairHalf

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

CHUNK = 256
"""Features whose products are summed as integers before the sum goes on in float32."""
MAX_WEIGHT = 32767
MAX_SIGN_TOTAL = 65534
"""Sum of the softmax weights of a text on signs: it is a 16-bit word."""
MAX_CHUNK = 262015
MAX_ROW = 1e30

EXP2_COEFFICIENTS = [np.float32(math.log(2) ** i / math.factorial(i)) for i in range(6)]


@dataclass(frozen=True, eq=False)
class FixedRows:
    """Rows of a matrix, w_ij ~ step_i q_ij.

    Attributes:
        q: float64 [rows, depth], integers up to 32767.
        step: float32 [rows].
        row_sum: float32 [rows], of w.
    """

    q: Float64
    step: Float32
    row_sum: Float32


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """Vectors x_ij ~ alpha_i a_ij + beta_i, one per text, to multiply rows with.

    Attributes:
        a: float64 [texts, depth], integers up to 8192.
        alpha: float32 [texts].
        beta: float32 [texts].
    """

    a: Float64
    alpha: Float32
    beta: Float32


def predict_head(
    codes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    dim: int,
    quantization: str,
    head: FoldedHead | PairHalf,
) -> Float32:
    """The logits of a head for every text; of the form two_texts, the texts' vectors.

    Args:
        codes: uint8 [tokens, code_bytes], of signs or uint8.
        offsets: int64 [texts + 1]: text i owns tokens offsets[i] up to offsets[i + 1].
        dim: features per token.
        quantization: `sign` or `uint8`.

    Returns:
        float32 [texts, classes].

    Raises ValueError for a row of weights whose sum of magnitudes is above 1e30.
    """
    is_sign = quantization == "sign"
    query = None if head.query is None else quantize_queries(head.query, is_sign)
    dense, output = quantize_rows(head.dense), quantize_rows(head.output)
    columns = 1 if head.query is None else len(head.query)
    texts = len(offsets) - 1
    a = np.empty((columns, texts, dim))
    alpha, beta = np.empty((2, columns, texts), np.float32)
    with np.errstate(all="ignore"):
        for text in range(texts):
            numbers = unpack(codes[offsets[text] : offsets[text + 1]], dim, is_sign)
            if query is None:
                e = fixed_exponentials(len(numbers), head.position_pooling.value)
            else:
                e = exponentials(numbers, *query, is_sign)
            pooled = pooled_codes(numbers, *softmax_weights(e, is_sign), is_sign)
            a[:, text], alpha[:, text], beta[:, text] = pooled.a, pooled.alpha, pooled.beta
        columns_of_texts = [FixedPoint(*column) for column in zip(a, alpha, beta, strict=True)]
        inner = columns_of_texts[0]
        if head.value is not None:
            inner = fixed_values(values(columns_of_texts, quantize_rows(head.value)))
        hidden = tanh(affine(inner, dense, head.dense_bias))
        return affine(fixed_hidden(hidden), output, head.output_bias)


def quantize_rows(w: Float32) -> FixedRows:
    """Rows float32 [rows, depth] in fixed point: no chunk times inputs of 8192 leaves an int32."""
    weights = w.astype(np.float64)
    sizes = np.abs(weights)
    check_rows(sizes)
    chunks = [sum_in_order(sizes[:, i : i + CHUNK]) for i in range(0, w.shape[1], CHUNK)]
    step = round_up(np.maximum(sizes.max(axis=1) / MAX_WEIGHT, np.max(chunks, axis=0) / MAX_CHUNK))
    return FixedRows(divide(weights, step), step, sum_in_order(weights).astype(np.float32))


def quantize_queries(u: Float32, is_sign: bool) -> tuple[Float64, Float32]:
    """Queries float32 [heads, dim] in fixed point: every score is an integer below 2^30.

    Returns q float64 [heads, dim], integers, and log2_step float32 [heads], the weight of a unit
    of score in powers of two.
    """
    sizes = np.abs(u.astype(np.float64))
    check_rows(sizes)
    code_size = 1 if is_sign else 128
    largest_score = 2**30 - 1 - code_size * u.shape[1]
    for_score = code_size * sum_in_order(sizes) / largest_score
    step = round_up(np.maximum(sizes.max(axis=1) / MAX_WEIGHT, for_score))
    log2_step = (step.astype(np.float64) * math.log2(math.e)).astype(np.float32)
    return divide(u.astype(np.float64), step), log2_step


def check_rows(sizes: Float64) -> None:
    """Raises ValueError if a row of magnitudes float64 [rows, depth] sums to more than 1e30."""
    largest = float(sum_in_order(sizes).max())
    if not largest <= MAX_ROW:
        raise ValueError(
            f"weights: got a row whose magnitudes sum to {largest}, expected at most {MAX_ROW}. "
            "Train the head again."
        )


def sum_in_order(x: Float64) -> Float64:
    """float64 [rows]: the sum of each row of x [rows, depth], first to last."""
    sums: Float64 = np.add.accumulate(x, axis=1)[:, -1]
    return sums


def round_up(x: Float64) -> Float32:
    """The smallest float32 that is not below."""
    nearest = x.astype(np.float32)
    return np.where(nearest < x, np.nextafter(nearest, np.float32(np.inf)), nearest)


def divide(w: Float64, step: Float32) -> Float64:
    """w [rows, depth] / step [rows] in float64, rounded half to even; 0 where step is 0."""
    divisor = np.where(step == 0, 1, step.astype(np.float64))
    q: Float64 = np.rint(w / divisor[:, np.newaxis])
    return q


def unpack(codes: NDArray[np.uint8], dim: int, is_sign: bool) -> Float64:
    """float64 [tokens, dim]: 0 or 1, or 0 to 255."""
    return (np.unpackbits(codes, axis=1, count=dim) if is_sign else codes).astype(np.float64)


def exp2_minus(z: Float32) -> Float32:
    """About 2^-z, for z >= 0: absolute error below 3e-6."""
    z = np.minimum(z, np.float32(100))
    k = np.rint(z)
    f = k - z
    p = np.full_like(z, EXP2_COEFFICIENTS[5])
    for coefficient in EXP2_COEFFICIENTS[4::-1]:
        p = p * f + coefficient
    return np.ldexp(p, -k.astype(np.int32))


def tanh(y: Float32) -> Float32:
    """About tanh, of any shape: absolute error below 3e-6."""
    t = exp2_minus(np.abs(y) * np.float32(2 * math.log2(math.e)))
    one = np.float32(1)
    return np.copysign((one - t) / (one + t), y)


def exponentials(numbers: Float64, q: Float64, log2_step: Float32, is_sign: bool) -> Float32:
    """float32 [tokens, heads]: exp(score - the head's largest score).

    Args:
        numbers: float64 [tokens, dim], codes.
        q, log2_step: of `quantize_queries`, float64 [heads, dim] and float32 [heads].
    """
    scores = (numbers - (0 if is_sign else 128)) @ q.T
    return exp2_minus((scores.max(axis=0) - scores).astype(np.float32) * log2_step)


def fixed_exponentials(tokens: int, pooling: str) -> Float32:
    """float32 [tokens, 1], where there is no query: 1 for all (`mean`), the first (`cls`) or the
    last (`last`)."""
    e = np.ones((tokens, 1), np.float32)
    if pooling == "cls":
        e[1:] = 0
    if pooling == "last":
        e[:-1] = 0
    return e


def softmax_weights(e: Float32, is_sign: bool) -> tuple[Float64, NDArray[np.int64]]:
    """e over its sum as integers.

    Returns float64 [tokens, columns], and the power of two that the weights of each column have
    been given beyond what is usual, int64 [columns].
    """
    total = np.add.accumulate(e, axis=0)[-1]
    if is_sign:
        gain = np.zeros(total.shape, np.int64)
        largest = np.full(total.shape, MAX_SIGN_TOTAL, np.float32)
    else:
        gain = np.minimum(np.frexp(total)[1] - 1, 8).astype(np.int64)
        largest = np.ldexp(np.float32(MAX_WEIGHT), gain)
    scale = (largest - np.float32(len(e))) / total
    weights: Float64 = np.rint(e * scale).astype(np.float64)
    return weights, gain


def pooled_codes(
    numbers: Float64, weights: Float64, gain: NDArray[np.int64], is_sign: bool
) -> FixedPoint:
    """The weighted means of one text's codes [tokens, dim], a row for each column of weights.

    Args:
        weights, gain: of `softmax_weights`, [tokens, columns] and [columns].
    """
    largest_code, shift = (1, 2) if is_sign else (255, 9)
    unit = np.ldexp(np.float32(1), shift + gain)
    total = weights.sum(axis=0)
    half = np.floor(largest_code * total / 2)
    centered = weights.T @ numbers - half[:, np.newaxis]
    a = np.floor(centered / unit[:, np.newaxis])
    w = total.astype(np.float32)
    dropped = (unit - np.float32(1)) * np.float32(0.5)
    return FixedPoint(a, unit / w, (half.astype(np.float32) + dropped) / w)


def product(a: Float64, q: Float64) -> Float32:
    """float32 [texts, rows]: a [texts, depth] by q [rows, depth], exact within a chunk."""
    chunks = [slice(i, i + CHUNK) for i in range(0, a.shape[1], CHUNK)]
    sums = [(a[:, chunk] @ q[:, chunk].T).astype(np.float32) for chunk in chunks]
    total = sums[0]
    for chunk_sum in sums[1:]:
        total = total + chunk_sum
    return total


def affine(x: FixedPoint, rows: FixedRows, bias: Float32 | np.float32) -> Float32:
    """float32 [texts, rows]: rows . x + bias, with bias float32 [rows] or one number."""
    alpha, beta = x.alpha[:, np.newaxis], x.beta[:, np.newaxis]
    return product(x.a, rows.q) * rows.step * alpha + beta * rows.row_sum + bias


def values(columns: list[FixedPoint], value: FixedRows) -> Float32:
    """float32 [texts, dim]: each attention head's rows of `value` by its pooled codes."""
    rows = len(value.q) // len(columns)
    parts = []
    for h, column in enumerate(columns):
        own = slice(h * rows, (h + 1) * rows)
        own_rows = FixedRows(value.q[own], value.step[own], value.row_sum[own])
        parts.append(affine(column, own_rows, np.float32(0)))
    return np.concatenate(parts, axis=1)


def fixed_values(v: Float32) -> FixedPoint:
    """v float32 [texts, dim] as integers up to 8192, each text under its own power of two."""
    largest = np.abs(v).max(axis=1)
    exponent = np.frexp(largest)[1] - 1  # floor(log2), of subnormals too
    k = np.where(largest == 0, 0, np.minimum(12 - exponent, 100))
    a = np.rint(np.ldexp(v, k[:, np.newaxis])).astype(np.float64)
    return FixedPoint(a, np.ldexp(np.ones_like(largest), -k), np.zeros_like(largest))


def fixed_hidden(hidden: Float32) -> FixedPoint:
    """hidden float32 [texts, inner], -1 to 1, as integers up to 8192."""
    a = np.rint(hidden * np.float32(8192)).astype(np.float64)
    alpha = np.full(len(hidden), 2**-13, np.float32)
    return FixedPoint(a, alpha, np.zeros(len(hidden), np.float32))
