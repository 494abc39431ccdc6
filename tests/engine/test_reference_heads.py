"""The integer arithmetic of `predict_heads` against the definition of a head in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from head_cases import (
    POOLINGS,
    QUANTIZATIONS,
    make_codes,
    make_head,
    make_spec,
    offsets_of,
)
from numpy.typing import NDArray
from test_predict_heads import evaluate, numbers

from bitheads.engine.heads import reference as reference_heads
from bitheads.engine.heads.head_file import FoldedHead

TOLERANCE = 2e-3
"""Of a probability. Most of the error is of the values, which are 13 bits and a sign."""
LENGTHS = [1, 2, 3, 5, 17, 50, 100, 512]


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def predict(
    head: FoldedHead, codes: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> NDArray[np.float32]:
    spec = head.spec
    return reference_heads.predict_head(codes, offsets, spec.dim, spec.quantization.value, head)


def worst_error(head: FoldedHead, lengths: list[int], seed: int = 0) -> float:
    """Of any class's probability, of any text."""
    codes = make_codes(seed, head.spec.quantization.value, head.spec.dim, sum(lengths))
    offsets = offsets_of(lengths)
    got = predict(head, codes, offsets)
    assert got.dtype == np.float32
    texts = np.split(numbers(codes, head.spec), offsets[1:-1])
    expected = np.array([evaluate(head, text) for text in texts])
    return float(np.abs(probabilities(got) - probabilities(expected)).max())


def scaled(head: FoldedHead, factors: Mapping[str, float]) -> FoldedHead:
    return replace(head, **{n: getattr(head, n) * np.float32(f) for n, f in factors.items()})


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_random_heads(quantization: str, pooling: str) -> None:
    for dim, attention_heads in ((4, 4), (32, 2), (33, 3), (130, 2), (384, 12), (1024, 16)):
        attention_heads = attention_heads if pooling == "attention" else 1
        for inner, classes in ((dim, 3), (17, 2), (300, 40)):
            head = make_head(
                dim,
                quantization,
                dim,
                pooling,
                attention_heads=attention_heads,
                inner=inner,
                classes=classes,
            )
            assert worst_error(head, LENGTHS) < TOLERANCE, f"dim {dim}, inner {inner}"


@pytest.mark.parametrize("sharpness", [0, 0.01, 1, 30, 300])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_flat_and_sharp_attention(quantization: str, sharpness: float) -> None:
    for dim, attention_heads in ((32, 1), (64, 4), (384, 12)):
        for seed in range(5):
            head = make_head(
                seed, quantization, dim, attention_heads=attention_heads, sharpness=sharpness
            )
            assert worst_error(head, LENGTHS, seed) < TOLERANCE, f"dim {dim}, seed {seed}"


MAGNITUDES: dict[str, dict[str, float]] = {
    "large_scores": {"query": 1e4},
    "small_scores": {"query": 1e-6},
    "large_values": {"value": 1e4, "dense": 1e-4},
    "small_values": {"value": 1e-6, "dense": 1e6},
    "tiny_values": {"value": 1e-36, "dense": 1e6},  # their power of two is the limit, 100
    "no_values": {"value": 0},
    "small_dense": {"dense": 1e-6},
    "large_bias": {"dense_bias": 1e4},
    "small_output": {"output": 1e-6},
    "no_output": {"output": 0, "output_bias": 0},
}


@pytest.mark.parametrize("name", MAGNITUDES)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_magnitudes_of_weights(quantization: str, name: str) -> None:
    for seed in range(3):
        head = make_head(seed, quantization, 64, attention_heads=4)
        assert worst_error(scaled(head, MAGNITUDES[name]), LENGTHS, seed) < TOLERANCE


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_steep_dense_without_attention(quantization: str, pooling: str) -> None:
    """What `dense` reads is nearly exact, so tanh may be a step."""
    head = make_head(0, quantization, 64, pooling)
    assert worst_error(scaled(head, {"dense": 1e4}), LENGTHS) < TOLERANCE


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_zero_rows_of_every_matrix(quantization: str) -> None:
    head = make_head(0, quantization, 64, attention_heads=4)
    some = {n: getattr(head, n).copy() for n in ("query", "value", "dense", "output")}
    for array in some.values():
        array[1] = 0
    assert worst_error(replace(head, **some), LENGTHS) < TOLERANCE


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_text_of_one_token_is_pooled_to_its_code(quantization: str) -> None:
    """Up to half a step of the pooled code, under every pooling."""
    codes = make_codes(0, quantization, 64, 1)
    number = numbers(codes, make_spec(quantization, 64))
    is_sign = quantization == "sign"
    one, gain = reference_heads.softmax_weights(np.ones((1, 1), np.float32), is_sign)
    assert one.tolist() == [[65533 if is_sign else 32766]]
    pooled = reference_heads.pooled_codes(number, one, gain, is_sign)
    back = pooled.a.astype(np.float64) * pooled.alpha + pooled.beta
    largest_code = 1 if quantization == "sign" else 255
    assert np.abs(back - number).max() <= 2**-14.9 * largest_code


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_texts_do_not_change_each_other(quantization: str) -> None:
    head = make_head(0, quantization, 130, attention_heads=2)
    offsets = offsets_of(LENGTHS, first=3)
    codes = make_codes(0, quantization, 130, offsets[-1] + 2)
    together = predict(head, codes, offsets)
    for text in range(len(LENGTHS)):
        alone = predict(head, codes, offsets[text : text + 2])
        assert np.array_equal(alone.view(np.uint32), together[text : text + 1].view(np.uint32))
    assert predict(head, codes, offsets[:1]).shape == (0, 3)


def random_rows(rng: np.random.Generator, depth: int) -> NDArray[np.float32]:
    """float32 [7, depth]: plain, all of one size, sparse, huge, tiny, subnormal, zeros."""
    row = rng.normal(size=depth).astype(np.float32)
    sparse = np.where(rng.random(depth) < 0.05, row, 0)
    rows = [row, np.sign(row), sparse, row * 1e25, row * 1e-30, row * 1e-42, 0 * row]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 3, 255, 256, 257, 1024])
def test_bounds_of_fixed_point_rows(depth: int) -> None:
    w = random_rows(np.random.default_rng(depth), depth)
    rows = reference_heads.quantize_rows(w)
    step = rows.step.astype(np.float64)[:, np.newaxis]
    assert rows.step.dtype == rows.row_sum.dtype == np.float32
    assert np.abs(rows.q).max() <= 32767
    for first in range(0, depth, reference_heads.CHUNK):
        chunk = rows.q[:, first : first + reference_heads.CHUNK]
        assert 8192 * np.abs(chunk).sum(axis=1).max() < 2**31
    assert (np.abs(rows.q * step - w) <= step / 2 * (1 + 1e-12)).all()
    np.testing.assert_allclose(rows.row_sum, w.astype(np.float64).sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("depth", [1, 3, 384, 1024, 65536])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_bounds_of_fixed_point_queries(quantization: str, depth: int) -> None:
    u = random_rows(np.random.default_rng(depth), depth)
    q, log2_step = reference_heads.quantize_queries(u, quantization == "sign")
    code_size = 1 if quantization == "sign" else 128
    assert log2_step.dtype == np.float32
    assert np.abs(q).max() <= 32767
    assert code_size * np.abs(q).sum(axis=1).max() < 2**30
    step = log2_step.astype(np.float64)[:, np.newaxis] / np.log2(np.e)
    rounded = np.float32(2**-149)  # of a step that is subnormal, 32767 times
    assert (np.abs(q * step - u) <= 0.51 * step + 32767 * rounded).all()


def test_a_row_that_is_too_large_is_refused() -> None:
    head = make_head(0, "sign", 8)
    for name in ("query", "value", "dense", "output"):
        huge = getattr(head, name).copy()
        huge[-1] = 2e29
        with pytest.raises(ValueError, match=r"magnitudes sum to 1\.6"):
            predict(replace(head, **{name: huge}), make_codes(0, "sign", 8, 1), offsets_of([1]))


def test_exp2_minus() -> None:
    z = np.concatenate([np.linspace(0, 3, 200_001), np.linspace(0, 120, 100_001)])
    z = z.astype(np.float32)
    expected = np.exp2(-z.astype(np.float64))
    got = reference_heads.exp2_minus(z)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 3e-6
    assert got[0] == 1
    near = z < 100
    assert np.abs(got[near] / expected[near] - 1).max() < 4e-6
    far = reference_heads.exp2_minus(np.array([100, 101, 1e38, np.inf], np.float32))
    assert (far == np.float32(2**-100)).all()


def test_tanh() -> None:
    y = np.concatenate([np.linspace(-10, 10, 200_001), np.linspace(-1e-3, 1e-3, 1001)])
    y = y.astype(np.float32)
    got = reference_heads.tanh(y)
    assert got.dtype == np.float32
    assert np.abs(got - np.tanh(y.astype(np.float64))).max() < 3e-6
    assert np.abs(got).max() <= 1
    ends = np.array([-np.inf, -1e38, 0, 1e-45, 1e38, np.inf], np.float32)
    assert reference_heads.tanh(ends).tolist() == [-1, -1, 0, 0, 1, 1]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("tokens", [1, 2, 3, 100, 512, 3000, 16383, 16384])
def test_softmax_weights_fit(quantization: str, tokens: int) -> None:
    """Sums of signs' weights are 16-bit words; a weight of uint8 is an int16, a sum an int32."""
    is_sign = quantization == "sign"
    rng = np.random.default_rng(tokens)
    e = np.exp(-rng.exponential([0, 1e-3, 0.3, 1, 10], (tokens, 5))).astype(np.float32)
    e[rng.integers(tokens)] = 1
    weights, gain = reference_heads.softmax_weights(e, is_sign)
    total = weights.sum(axis=0)
    assert (weights >= 0).all()
    assert (total >= 1).all()
    if is_sign:
        assert total.max() <= 65534
        assert not gain.any()
    else:
        assert weights.max() <= 32767
        assert (total <= 32767 * 2.0**gain).all()
        assert 255 * total.max() < 2**31


@pytest.mark.parametrize("tokens", [1, 2, 255, 256, 511, 512, 16384])
def test_equal_weights_of_long_texts_on_uint8_keep_15_bits(tokens: int) -> None:
    weights, gain = reference_heads.softmax_weights(np.ones((tokens, 1), np.float32), False)
    assert gain.tolist() == [min(8, int(np.log2(tokens)))]
    assert (weights >= 32767 * 2.0**gain / tokens - 2).all()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("tokens", [1, 2, 50, 512, 3000, 16384])
def test_error_of_pooled_codes(quantization: str, tokens: int) -> None:
    """Within T 2^-17 + 2^-15 of the range of a code for signs, however unlucky; see SPEC.md."""
    rng = np.random.default_rng(tokens)
    is_sign = quantization == "sign"
    codes = numbers(make_codes(1, quantization, 32, tokens), make_spec(quantization, 32))
    e = np.exp(-rng.exponential([0, 1e-3, 0.3, 1, 10], (tokens, 5))).astype(np.float32)
    codes[:, 0] = np.where(e[:, 2] > np.median(e[:, 2]), codes.max(), 0)  # follows the weights
    weights, gain = reference_heads.softmax_weights(e, is_sign)
    pooled = reference_heads.pooled_codes(codes, weights, gain, is_sign)
    assert np.abs(pooled.a).max() <= 8192
    back = pooled.a * pooled.alpha[:, np.newaxis] + pooled.beta[:, np.newaxis]
    expected = (e / e.sum(axis=0, dtype=np.float64)).T @ codes
    error = np.abs(back - expected).max(axis=1) / (1 if is_sign else 255)
    assert (error <= tokens * 2.0 ** -(17 if is_sign else 16 + gain) + 2**-15).all()
