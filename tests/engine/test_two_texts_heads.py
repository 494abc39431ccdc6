"""Heads of the form two_texts on codes: what the reference gives, to the bit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from head_cases import make_spec, offsets_of
from numpy.typing import NDArray
from random_heads import random_two_texts_head

from bitheads import FeatureSpec, HeadError, InputError, PackedFeatures, PositionPooling
from bitheads.engine.heads import cpu, float_heads, two_texts_reference
from bitheads.engine.heads.cpu import CpuHead, HeadThreads, load_head
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.heads.reference import predict_head

LENGTHS = [1, 30, 2, 7, 128, 1, 33, 64, 19, 5, 9]


def make_features(spec: FeatureSpec, lengths: list[int]) -> PackedFeatures:
    rng = np.random.default_rng(0)
    if spec.quantization.value == "float16":
        codes = rng.normal(size=(sum(lengths), spec.dim)).astype("<f2").view(np.uint8)
    else:
        codes = rng.integers(0, 256, (sum(lengths), spec.code_bytes), dtype=np.uint8)
    return PackedFeatures(codes, offsets_of(lengths), spec)


def heads_of(spec: FeatureSpec) -> list[FoldedHead]:
    """Every pooling, vectors of every kind of size."""
    sizes = (1, 17, None, 33)
    return [
        random_two_texts_head(
            spec, f"{pooling.value}", pooling, 2 + i, i, vector_size=size, inner=9 * i + 8
        )
        for i, (pooling, size) in enumerate(zip(PositionPooling, sizes, strict=True))
    ]


def predict(
    features: PackedFeatures, pairs: NDArray[np.int64], heads: list[CpuHead], threads: int = 2
) -> list[NDArray[np.float32]]:
    with HeadThreads(threads) as running:
        return running.pair_outputs(running.text_vectors(features, heads), pairs, heads)


def expected(
    features: PackedFeatures, pairs: NDArray[np.int64], head: FoldedHead
) -> NDArray[np.float32]:
    spec = head.spec
    if spec.quantization.value != "float16":
        inputs = (features.codes, features.offsets, spec.dim, spec.quantization.value)
        return two_texts_reference.predict_pairs(*inputs, head, pairs)
    (vectors,) = float_heads.predict_heads(features, [head])
    rows = two_texts_reference.combine_texts(vectors, pairs)
    assert head.pair is not None
    return predict_head(rows, np.arange(len(rows) + 1), rows.shape[1], "uint8", head.pair)


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("quantization", ["sign", "uint8", "float16"])
@pytest.mark.parametrize("dim", [8, 64])
def test_outputs_are_those_of_the_reference(quantization: str, dim: int) -> None:
    spec = make_spec(quantization, dim)
    features, heads = make_features(spec, LENGTHS), heads_of(spec)
    pairs = np.array([*product(range(len(LENGTHS)), repeat=2)])
    for given in ([load_head(head) for head in heads], [*heads]):
        got = predict(features, pairs, given)
        for head, outputs in zip(heads, got, strict=True):
            assert outputs.shape == (len(pairs), len(head.labels))
            assert same_bits(outputs, expected(features, pairs, head))
            if head.num_text_outputs > 1:  # one number at a root mean square of 1 has no size
                assert outputs.std(axis=0).min() > 1e-2, "or this would compare constants"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_pair_alone_has_the_bits_it_has_among_others(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "MIN_SHARED_BYTES", 0)
    spec = make_spec("sign", 64)
    features, folded = make_features(spec, LENGTHS), heads_of(spec)
    heads: list[CpuHead] = [load_head(head) for head in folded]
    pairs = np.random.default_rng(0).integers(0, len(LENGTHS), (1000, 2))
    together = predict(features, pairs, heads, threads)
    for i in range(0, 1000, 50):
        alone = predict(features[pairs[i]], np.array([[0, 1]]), heads, threads)
        for one, all_of_them in zip(alone, together, strict=True):
            assert same_bits(one[0], all_of_them[i])


def test_the_order_of_two_texts_matters() -> None:
    spec = make_spec("sign", 64)
    features, head = make_features(spec, LENGTHS), load_head(random_two_texts_head(spec))
    (there,) = predict(features, np.array([[3, 4]]), [head])
    (back,) = predict(features, np.array([[4, 3]]), [head])
    assert not np.allclose(there, back)


def test_no_pairs() -> None:
    spec = make_spec("sign", 64)
    head = load_head(random_two_texts_head(spec))
    none = np.empty((0, 2), np.int64)
    assert predict(make_features(spec, [3]), none, [head])[0].shape == (0, 3)
    assert predict(make_features(spec, []), none, [head])[0].shape == (0, 3)


def test_a_text_without_tokens_is_an_error() -> None:
    spec = make_spec("sign", 64)
    head = load_head(random_two_texts_head(spec))
    with pytest.raises(InputError, match="text 1 has no tokens"):
        predict(make_features(spec, [3, 0]), np.array([[0, 0]]), [head])


def test_a_row_of_the_half_for_pairs_that_is_too_large_is_an_error() -> None:
    head = random_two_texts_head(make_spec("float16", 64))
    assert head.pair is not None
    head.pair.dense[0] = 1e30
    with pytest.raises(HeadError, match="is more than 1e\\+15 in all"):
        load_head(head)
    head = random_two_texts_head(make_spec("sign", 64))
    assert head.pair is not None
    head.pair.dense[0] = 1e30
    with pytest.raises(HeadError, match="'task': head: got weights that are not finite, or a row"):
        load_head(head)


def test_what_is_laid_out_counts_both_halves() -> None:
    spec = make_spec("sign", 64)
    head = random_two_texts_head(spec, inner=64)
    laid_out = cpu.lay_out(head)
    assert laid_out.pair_block is not None
    assert laid_out.nbytes == laid_out.block.nbytes + laid_out.pair_block.nbytes
    assert 0.45 < laid_out.nbytes / head.nbytes < 0.65
