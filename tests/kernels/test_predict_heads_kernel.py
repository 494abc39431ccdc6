"""Every level of `predict_heads` against the reference, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from head_cases import (
    POOLINGS,
    QUANTIZATIONS,
    Case,
    HeadSizes,
    assert_same_bits,
    check,
    make_case,
    make_codes,
    make_head,
    mixed_sizes,
    moved,
    offsets_of,
    predict,
    random_case,
    read_only,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import GuardedMemory, levels

from bitheads.engine import _kernels
from bitheads.engine.heads.head_file import FoldedHead

ATTENTION_HEADS_OF_DIM = {
    1: 1,
    3: 3,
    4: 2,
    31: 1,
    32: 4,
    33: 3,
    64: 16,
    96: 12,
    128: 4,
    130: 5,
    255: 17,
    256: 16,
    257: 1,
    384: 12,
    520: 4,
    1024: 16,
}
LENGTHS = (1, 2, 3, 4, 5, 6, 14, 15, 16, 29, 30, 31, 50, 100, 512)


@pytest.fixture(params=QUANTIZATIONS)
def quantization(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def lengths_of(texts: int) -> tuple[int, ...]:
    """Texts of 1 to 37 tokens."""
    return tuple(1 + 5 * i % 37 for i in range(texts))


@pytest.mark.parametrize("dim", ATTENTION_HEADS_OF_DIM)
def test_dims(level: str, quantization: str, dim: int) -> None:
    sizes = mixed_sizes(4, ATTENTION_HEADS_OF_DIM[dim])
    check(random_case(quantization, dim, sizes, (1, 2, 3, 16, 31)), level)


@pytest.mark.parametrize(
    ("attention_heads", "dim"),
    [
        (1, 64),
        (2, 64),
        (3, 96),
        (4, 128),
        (5, 130),
        (12, 384),
        (16, 256),
        (17, 255),
        (64, 64),
        (130, 130),
        (130, 260),
    ],
)
def test_attention_heads(level: str, quantization: str, attention_heads: int, dim: int) -> None:
    one = HeadSizes(attention_heads=attention_heads)
    check(random_case(quantization, dim, (one, HeadSizes("mean", 0), one), (31, 1, 7)), level)


@pytest.mark.parametrize("inner", [1, 16, 17, 40, 300])
def test_inner_sizes_and_classes(level: str, quantization: str, inner: int) -> None:
    sizes = tuple(
        HeadSizes(pooling, 2 if pooling == "attention" else 0, inner, classes)
        for pooling in ("attention", "cls", "last")
        for classes in (2, 3, 17, 40)
    )
    check(random_case(quantization, 64, sizes, (5, 1, 3)), level)


@pytest.mark.parametrize("length", LENGTHS)
def test_one_text_of_any_length(level: str, quantization: str, length: int) -> None:
    check(random_case(quantization, 64, mixed_sizes(4, 4), (length,)), level)


def test_texts_of_all_lengths(level: str, quantization: str) -> None:
    check(random_case(quantization, 96, mixed_sizes(4, 3), LENGTHS), level)


def test_long_texts(level: str, quantization: str) -> None:
    check(random_case(quantization, 32, mixed_sizes(4, 4), (3, 3000, 1)), level)
    check(random_case(quantization, 8, mixed_sizes(4, 4), (16384,)), level)


@pytest.mark.parametrize("texts", [1, 2, 13, 70, 200])
@pytest.mark.parametrize("heads", [1, 2, 20])
def test_any_number_of_texts_and_heads(
    level: str, quantization: str, heads: int, texts: int
) -> None:
    check(random_case(quantization, 64, mixed_sizes(heads, 4), lengths_of(texts)), level)


def test_nothing_to_do(level: str, quantization: str) -> None:
    no_text = random_case(quantization, 64, mixed_sizes(2), ())
    assert [logits.shape for logits in predict(no_text, level)] == [(0, 3), (0, 2)]
    some = random_case(quantization, 64, mixed_sizes(2), (3, 1))
    assert predict(some, level, heads=slice(0)) == []


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    quantization=st.sampled_from(QUANTIZATIONS),
    head_dim=st.integers(1, 40),
    attention_heads=st.integers(1, 20),
    heads=st.integers(1, 5),
    texts=st.integers(1, 20),
    longest=st.integers(1, 70),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e4]),
)
def test_any_shape(
    seed: int,
    quantization: str,
    head_dim: int,
    attention_heads: int,
    heads: int,
    texts: int,
    longest: int,
    scale: float,
) -> None:
    rng = np.random.default_rng(seed)
    dim = head_dim * attention_heads
    chosen = []
    for _ in range(heads):
        pooling = rng.choice(POOLINGS, p=[0.55, 0.15, 0.15, 0.15])
        inner, classes = rng.integers([1, 2], [90, 40])
        head = make_head(
            int(rng.integers(2**32)),
            quantization,
            dim,
            str(pooling),
            attention_heads=attention_heads,
            inner=int(inner),
            classes=int(classes),
        )
        name = rng.choice(["query", "value"] if pooling == "attention" else ["dense", "output"])
        chosen.append(replace(head, **{name: getattr(head, name) * np.float32(scale)}))
    lengths = rng.integers(1, longest + 1, texts)
    codes = make_codes(seed, quantization, dim, int(lengths.sum()) + 5)
    case = make_case(codes, offsets_of(lengths.tolist(), first=int(rng.integers(6))), chosen)
    for level in levels():
        check(case, level)


class TestBatches:
    """What else is in a call changes no bit."""

    @pytest.fixture
    def case(self, quantization: str) -> Case:
        return random_case(quantization, 130, mixed_sizes(9, 5), lengths_of(41))

    def test_each_text_alone(self, level: str, case: Case) -> None:
        for text in range(41):
            one = slice(text, text + 1)
            expected = [logits[one] for logits in case.expected]
            assert_same_bits(predict(case, level, texts=one), expected, f"text {text}")

    def test_each_head_alone(self, level: str, case: Case) -> None:
        for head in range(9):
            one = slice(head, head + 1)
            assert_same_bits(predict(case, level, heads=one), case.expected[one], f"head {head}")

    @pytest.mark.parametrize("cut", [1, 4, 7])
    def test_split_among_calls(self, level: str, case: Case, cut: int) -> None:
        texts = (slice(5 * cut), slice(5 * cut, None))
        heads = (slice(cut), slice(cut, None))
        parts = [[predict(case, level, texts=t, heads=h) for t in texts] for h in heads]
        whole = [np.concatenate(pair) for row in parts for pair in zip(*row, strict=True)]
        assert_same_bits(whole, case.expected)

    def test_the_same_head_twice(self, level: str, case: Case) -> None:
        twice = replace(
            case, blocks=[case.blocks[0]] * 2 + case.blocks[:1], expected=case.expected[:1] * 3
        )
        check(twice, level)


class TestMemory:
    """Only what belongs to the call is read and written."""

    @pytest.fixture
    def case(self, quantization: str) -> Case:
        return random_case(quantization, 33, mixed_sizes(5, 3), lengths_of(30))

    @pytest.mark.parametrize("fill", [0x00, 0x7F, 0x80, 0xFF])
    def test_what_is_in_the_workspace_does_not_matter(
        self, level: str, case: Case, fill: int
    ) -> None:
        assert_same_bits(predict(case, level, workspace_fill=fill), case.expected)

    @pytest.mark.parametrize("shift_bytes", [1, 3, 8])
    def test_codes_at_any_address(self, level: str, case: Case, shift_bytes: int) -> None:
        codes = moved(case.codes.ravel(), shift_bytes).reshape(case.codes.shape)
        check(replace(case, codes=codes), level)

    def test_tokens_that_no_text_owns(self, level: str, case: Case) -> None:
        before, after = case.codes[:7], case.codes[:2]
        codes = np.concatenate([before, case.codes, after])
        check(replace(case, codes=codes, offsets=case.offsets + 7), level)

    def test_a_head_may_be_copied(self, level: str, case: Case) -> None:
        copies = [read_only(moved(block)) for block in case.blocks]
        check(replace(case, blocks=copies), level)

    @pytest.mark.parametrize("end", [True, False], ids=["end", "start"])
    def test_stays_between_forbidden_pages(self, level: str, case: Case, end: bool) -> None:
        def guard(array: np.ndarray) -> np.ndarray:
            memory = GuardedMemory(array.nbytes)
            return memory.at_end(array) if end else memory.at_start(array)

        blocks = [guard(block) for block in case.blocks]
        call = (guard(case.codes), guard(case.offsets), case.dim, case.quantization, blocks)
        workspace = guard(np.full(_kernels.predict_heads_workspace(*call), 0xFF, np.uint8))
        logits = [guard(np.full_like(expected, np.nan)) for expected in case.expected]
        _kernels.predict_heads(*call, logits, workspace, level)
        assert_same_bits(logits, case.expected)

    def test_codes_and_offsets_may_be_read_only(self, level: str, case: Case) -> None:
        check(replace(case, codes=read_only(case.codes), offsets=read_only(case.offsets)), level)


@pytest.mark.parametrize("dim", [1, 9, 33, 130, 255])
def test_trailing_bits_of_signs_are_ignored(level: str, dim: int) -> None:
    case = random_case("sign", dim, mixed_sizes(4, 1), (1, 5, 40))
    bits = np.unpackbits(case.codes, axis=1)
    for trailing in (0, 1):
        bits[:, dim:] = trailing
        check(replace(case, codes=np.packbits(bits, axis=1)), level, f"trailing {trailing}")


def extreme_heads(quantization: str) -> dict[str, FoldedHead]:
    head = make_head(0, quantization, 64, attention_heads=4, inner=40)
    mean = make_head(1, quantization, 64, "mean", inner=40)
    one_row_of_zeros = {n: getattr(head, n).copy() for n in ("query", "value", "dense", "output")}
    for array in one_row_of_zeros.values():
        array[1] = 0
    f32 = np.float32
    return {
        "tiny": replace(head, query=head.query * f32(1e-38), value=head.value * f32(1e-38)),
        "subnormal": replace(head, value=head.value * f32(1e-43), output=head.output * f32(1e-44)),
        "zeros": replace(
            head,
            query=head.query * f32(0),
            value=head.value * f32(0),
            output_bias=head.output_bias * f32(-0.0),
        ),
        "one_row_of_zeros": replace(head, **one_row_of_zeros),
        "values_at_the_smallest_power_of_two": replace(
            head, value=head.value * f32(1e-29), dense=head.dense * f32(1e28)
        ),
        "huge": replace(
            head, query=np.full_like(head.query, 1e28), value=np.full_like(head.value, 1.5e28)
        ),
        "huge_dense": replace(head, value=head.value * f32(1e27), dense=head.dense * f32(1e27)),
        "huge_output": replace(head, output=np.sign(head.output) * f32(2e28)),
        "huge_bias": replace(
            head,
            dense_bias=np.full_like(head.dense_bias, 3e38) * np.sign(head.dense_bias),
            output_bias=np.full_like(head.output_bias, -3e38),
        ),
        "huge_mean": replace(mean, dense=np.sign(mean.dense) * f32(1.5e28)),
        "tiny_mean": replace(
            mean,
            dense=mean.dense * f32(1e-40),
            dense_bias=mean.dense_bias * f32(-0.0),
            output_bias=mean.output_bias * f32(-0.0),
        ),
        "one_large_weight": replace(mean, dense=np.where(mean.dense > 1, 1e20, mean.dense)),
    }


@pytest.mark.parametrize("name", extreme_heads("sign"))
def test_extreme_weights(level: str, quantization: str, name: str) -> None:
    lengths = [1, 2, 40, 7]
    codes = make_codes(0, quantization, 64, sum(lengths))
    codes[0] = 0
    codes[1:3] = 0xFF
    head = extreme_heads(quantization)[name]
    assert head.dense.dtype == np.float32
    case = make_case(codes, offsets_of(lengths), [head])
    assert np.isfinite(case.expected[0]).all()
    check(case, level)


@pytest.mark.parametrize("codes_of", ["zeros", "ones", "one_token_repeated"])
def test_codes_that_are_all_alike(level: str, quantization: str, codes_of: str) -> None:
    lengths = [1, 3, 16, 100]
    codes = make_codes(0, quantization, 96, sum(lengths))
    codes[:] = {"zeros": 0, "ones": 0xFF, "one_token_repeated": codes[0]}[codes_of]
    heads = [make_head(0, quantization, 96, attention_heads=3, inner=20)]
    heads += [make_head(1, quantization, 96, pooling, inner=20) for pooling in POOLINGS[1:]]
    check(make_case(codes, offsets_of(lengths), heads), level)


MIB = 1 << 20


@pytest.mark.parametrize("longest", [1, 50, 512])
def test_workspace_is_bounded(quantization: str, longest: int) -> None:
    """However many texts and heads there are: 100,000 by 1,000, or a GiB of codes."""
    one = HeadSizes("attention", attention_heads=16, inner=1024)
    (block,) = random_case(quantization, 1024, (one,), ()).blocks
    width = 128 if quantization == "sign" else 1024

    def needed(texts: int, heads: int) -> int:
        codes = np.empty((texts * longest, width), np.uint8)  # never touched
        offsets = np.arange(texts + 1) * longest
        return _kernels.predict_heads_workspace(codes, offsets, 1024, quantization, [block] * heads)

    largest = needed(min(100_000, 1024 * MIB // (longest * width)), 1_000)
    assert largest <= 64 * MIB
    assert needed(1_000, 1_000) == largest
    assert needed(1, 1) < largest
