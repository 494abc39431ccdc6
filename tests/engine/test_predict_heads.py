"""Heads on packed features against an evaluation text by text, in float64, from the definition."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from head_cases import make_spec
from numpy.typing import NDArray
from random_heads import random_head

from bitheads import (
    Calibration,
    Engine,
    FeatureSpec,
    HeadError,
    InputError,
    PackedFeatures,
    PositionPooling,
    Prediction,
    Quantization,
    SpecMismatchError,
    UnknownTaskError,
)
from bitheads.engine.heads import cpu as heads
from bitheads.engine.heads import float_heads
from bitheads.engine.heads.cpu import predict_heads
from bitheads.engine.heads.head_file import FoldedHead, write_head

ATTENTION, MEAN, CLS, LAST = (
    PositionPooling(name) for name in ("attention", "mean", "cls", "last")
)
TOLERANCE = 2e-5
"""Of float32: logits are near 1 and their sums of 64 to 384 products."""

PROBABILITY_TOLERANCE = 2e-3
"""Of the native kernels' fixed-point numbers."""


def make_features(spec: FeatureSpec, lengths: list[int], seed: int = 0) -> PackedFeatures:
    rng = np.random.default_rng(seed)
    if spec.quantization is Quantization.FLOAT16:
        codes = rng.normal(size=(sum(lengths), spec.dim)).astype("<f2").view(np.uint8)
    else:
        codes = rng.integers(0, 256, (sum(lengths), spec.code_bytes), dtype=np.uint8)
    return PackedFeatures(codes, np.cumsum([0, *lengths]), spec)


def numbers(codes: NDArray[np.uint8], spec: FeatureSpec) -> NDArray[np.float64]:
    """What heads read: 0 and 1 for signs, 0 to 255, or the float16 value."""
    if spec.quantization is Quantization.SIGN:
        return np.unpackbits(codes, axis=1)[:, : spec.dim].astype(np.float64)
    if spec.quantization is Quantization.UINT8:
        return codes.astype(np.float64)
    return codes.copy().view("<f2").astype(np.float64)


def evaluate(head: FoldedHead, codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logits of one text, float64 [classes], by the formula in FoldedHead's docstring."""
    if head.position_pooling is PositionPooling.CLS:
        inner = codes[0]
    elif head.position_pooling is PositionPooling.LAST:
        inner = codes[-1]
    elif head.position_pooling is PositionPooling.MEAN:
        inner = codes.mean(axis=0)
    else:
        assert head.query is not None
        assert head.value is not None
        rows = head.spec.dim // len(head.query)
        parts = []
        for h, query in enumerate(head.query.astype(np.float64)):
            scores = codes @ query
            attention = np.exp(scores - scores.max())
            attention /= attention.sum()
            value = head.value[h * rows : (h + 1) * rows].astype(np.float64)
            parts.append(value @ (attention @ codes))
        inner = np.concatenate(parts)
    hidden = np.tanh(head.dense.astype(np.float64) @ inner + head.dense_bias)
    return np.asarray(head.output.astype(np.float64) @ hidden + head.output_bias)


def assert_close(logits: NDArray[np.float32], expected: Any, quantization: Quantization) -> None:
    if quantization is Quantization.FLOAT16:
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=TOLERANCE)
    else:
        got, right = (
            Prediction(("", ""), np.asarray(array, np.float32)).probabilities
            for array in (logits, expected)
        )
        np.testing.assert_allclose(got, right, atol=PROBABILITY_TOLERANCE)


def assert_right(features: PackedFeatures, chosen: list[FoldedHead]) -> None:
    got = predict_heads(features, chosen)
    floats = float_heads.predict_heads(features, chosen)
    assert list(got) == [head.task for head in chosen]
    for head, in_floats in zip(chosen, floats, strict=True):
        expected = [evaluate(head, numbers(text.codes, head.spec)) for text in features]
        prediction = got[head.task]
        assert prediction.labels == head.labels
        assert prediction.logits.dtype == np.float32
        assert prediction.logits.shape == (len(features), len(head.labels))
        assert_close(prediction.logits, expected, head.spec.quantization)
        np.testing.assert_allclose(in_floats, expected, atol=TOLERANCE, rtol=TOLERANCE)
        if len(features) > 3:  # else this would compare constants
            assert prediction.logits.std(axis=0).min() > 1e-3


def mixed_heads(spec: FeatureSpec, count: int) -> list[FoldedHead]:
    poolings = [ATTENTION, CLS, ATTENTION, MEAN, LAST]
    return [
        random_head(spec, f"task-{i}", poolings[i % 5], classes=2 + i % 5, seed=i)
        for i in range(count)
    ]


LENGTHS = [1, 300, 2, 7, 128, 1, 33, 64, 19, 5]


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize("dim", [64, 128])
def test_any_number_of_mixed_heads(count: int, dim: int) -> None:
    spec = make_spec(dim=dim)
    assert_right(make_features(spec, LENGTHS), mixed_heads(spec, count))


@pytest.mark.parametrize("pooling", list(PositionPooling))
@pytest.mark.parametrize("quantization", ["sign", "uint8", "float16"])
def test_every_pooling_of_every_quantization(quantization: str, pooling: PositionPooling) -> None:
    spec = make_spec(quantization)
    assert_right(make_features(spec, LENGTHS), [random_head(spec, pooling=pooling)])


@pytest.mark.parametrize("length", [1, 2, 511])
def test_one_text_of_any_length(length: int) -> None:
    spec = make_spec()
    assert_right(make_features(spec, [length]), mixed_heads(spec, 4))


@pytest.mark.parametrize("attention_heads", [1, 2, 16, 64])
def test_any_number_of_attention_heads(attention_heads: int) -> None:
    spec = make_spec()
    head = random_head(spec)
    query = np.random.default_rng(7).normal(0, 0.4, (attention_heads, 64)).astype(np.float32)
    assert_right(make_features(spec, LENGTHS), [replace(head, query=query)])


@pytest.mark.parametrize("inner", [1, 30, 200])
def test_any_inner_size(inner: int) -> None:
    spec = make_spec()
    rng = np.random.default_rng(8)
    head = replace(
        random_head(spec, classes=2),
        dense=rng.normal(0, 0.05, (inner, 64)).astype(np.float32),
        dense_bias=rng.normal(0, 0.3, inner).astype(np.float32),
        output=rng.normal(0, 0.3, (2, inner)).astype(np.float32),
    )
    assert_right(make_features(spec, LENGTHS), [head])


def test_large_scores_do_not_overflow() -> None:
    spec = make_spec("uint8")
    head = random_head(spec)
    assert head.query is not None
    sharp = replace(head, query=head.query * 1000)
    logits = predict_heads(make_features(spec, LENGTHS), [sharp])["task"].logits
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("block_bytes", [1, 5_000, 100_000])
def test_blocks_do_not_change_the_answers(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    spec = make_spec("float16")
    features, chosen = make_features(spec, LENGTHS * 4), mixed_heads(spec, 8)
    whole = predict_heads(features, chosen)
    monkeypatch.setattr(float_heads, "BLOCK_BYTES", block_bytes)
    starts = [start for start, _ in float_heads._blocks(features, 16)]
    assert len(starts) > 2
    in_blocks = predict_heads(features, chosen)
    for task, prediction in whole.items():
        np.testing.assert_allclose(in_blocks[task].logits, prediction.logits, atol=1e-5)


@pytest.mark.parametrize("num_texts", [1, 3, 10, 130, 700])
@pytest.mark.parametrize("quantization", ["sign", "uint8"])
def test_threads_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, quantization: str, num_texts: int
) -> None:
    monkeypatch.setattr(heads, "MIN_SHARED_BYTES", 0)
    spec = make_spec(quantization)
    features = make_features(spec, (LENGTHS * 70)[:num_texts])
    chosen = [heads.lay_out(head) for head in mixed_heads(spec, 5)]
    alone = predict_heads(features, chosen)
    for count in (2, 3, 16):
        with heads.HeadThreads(count) as threads:
            for _ in range(2):  # the second time in workspaces that are used
                for task, prediction in threads.predict(features, chosen).items():
                    assert np.array_equal(prediction.logits, alone[task].logits)


def test_parts_are_every_text_by_every_head_once() -> None:
    for num_texts, num_heads, threads in product(
        (0, 1, 63, 64, 129, 5000), (0, 1, 3, 20), (1, 2, 7)
    ):
        done = np.zeros((num_texts, num_heads), int)
        for texts, chosen in heads._parts(num_texts, num_heads, threads):
            assert texts.start < texts.stop <= num_texts
            assert chosen.start < chosen.stop <= num_heads
            done[texts, chosen] += 1
        assert (done == 1).all()


def test_calls_from_many_threads_are_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "MIN_SHARED_BYTES", 0)
    spec = make_spec()
    chosen = [heads.lay_out(head) for head in mixed_heads(spec, 5)]
    features = [make_features(spec, LENGTHS * size, seed=size) for size in range(1, 9)]
    alone = [predict_heads(batch, chosen) for batch in features]
    with heads.HeadThreads(2) as threads, ThreadPoolExecutor(4) as callers:
        answers = callers.map(lambda batch: threads.predict(batch, chosen), features * 5)
        for index, answer in enumerate(answers):
            for task, prediction in answer.items():
                assert np.array_equal(prediction.logits, alone[index % 8][task].logits)


def test_a_laid_out_head_takes_half_the_memory() -> None:
    head = random_head(make_spec(dim=384), classes=2)
    laid_out = heads.lay_out(head)
    assert laid_out.nbytes < 0.55 * head.nbytes


def test_weights_past_all_measure_are_refused() -> None:
    head = random_head(make_spec())
    huge = replace(head, dense=np.full_like(head.dense, 1e38))
    with pytest.raises(HeadError, match=r"head 'task'.*more than 1e30.*train it again"):
        heads.lay_out(huge)


def test_a_text_of_too_many_tokens_is_refused() -> None:
    spec = make_spec()
    with pytest.raises(InputError, match="16385 tokens, expected at most 16384"):
        predict_heads(make_features(spec, [3, 16_385]), [random_head(spec)])


def test_blocks_cover_every_text_once_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features(make_spec(), LENGTHS * 10)
    for block_bytes in (1, 3_000, 50_000, 10**9):
        monkeypatch.setattr(float_heads, "BLOCK_BYTES", block_bytes)
        blocks = list(float_heads._blocks(features, 12))
        assert [start for start, _ in blocks[1:]] == [stop for _, stop in blocks[:-1]]
        assert (blocks[0][0], blocks[-1][1]) == (0, len(features))
        for start, stop in blocks:
            tokens = int(features.offsets[stop] - features.offsets[start])
            assert stop - start == 1 or 4 * 64 * tokens <= block_bytes
            assert stop - start == 1 or 4 * 64 * 12 * (stop - start) <= block_bytes


def test_no_texts_have_no_logits() -> None:
    spec = make_spec()
    for prediction in predict_heads(make_features(spec, []), mixed_heads(spec, 4)).values():
        assert prediction.logits.shape == (0, len(prediction.labels))


def test_no_heads_have_no_predictions() -> None:
    assert predict_heads(make_features(make_spec(), [3]), []) == {}


def test_a_text_of_no_tokens_is_named() -> None:
    spec = make_spec()
    with pytest.raises(InputError, match="text 1 has no tokens"):
        predict_heads(make_features(spec, [2, 0, 3]), [random_head(spec)])


def test_a_head_of_another_spec_is_named_with_both_ids() -> None:
    spec, other = make_spec(), make_spec(dim=128)
    with pytest.raises(SpecMismatchError, match=rf"head 'task'.*{other.id}.*{spec.id}"):
        predict_heads(make_features(spec, [2]), [random_head(other)])


class TestEngine:
    """`predict` is `encode`, then heads on what it gives."""

    TEXTS = ("The tide was out.", ("Where is it?", "It is by the door."), "", "tide " * 200)

    @pytest.fixture
    def engine(self, tiny_engine: Engine, tmp_path: Path) -> Engine:
        for head in mixed_heads(tiny_engine.spec, 6):
            path = tmp_path / f"{head.task}.safetensors"
            write_head(head, path, dtype="float16" if head.task == "task-4" else "float32")
            tiny_engine.add_head(path)
        return tiny_engine

    def test_predict_equals_predict_features_of_encode(self, engine: Engine) -> None:
        predictions = engine.predict(self.TEXTS)
        from_codes = engine.predict_features(engine.encode(self.TEXTS))
        assert list(predictions) == list(from_codes) == [f"task-{i}" for i in range(6)]
        for task, prediction in predictions.items():
            assert np.array_equal(prediction.logits, from_codes[task].logits, equal_nan=True)
            assert prediction.top == from_codes[task].top
            assert prediction.answered.tolist() == [True, False, True, True]  # one is a pair
            assert prediction.logits.shape[0] == len(self.TEXTS)

    def test_predictions_are_the_heads_on_the_codes(self, engine: Engine) -> None:
        features = engine.encode(self.TEXTS)
        head = mixed_heads(engine.spec, 6)[0]
        expected = [evaluate(head, numbers(text.codes, engine.spec)) for text in features]
        answer = engine.predict(self.TEXTS, ["task-0"])["task-0"]
        alike = [
            row for row, has_answer in zip(expected, answer.answered, strict=True) if has_answer
        ]
        assert len(alike) == 3
        assert_close(answer.logits[answer.answered], alike, engine.spec.quantization)
        # Of codes whose form nobody says, the head answers all.
        got = engine.predict_features(replace(features, pairs=None), ["task-0"])["task-0"].logits
        assert_close(got, expected, engine.spec.quantization)

    def test_a_text_is_answered_alike_alone_and_among_others(self, engine: Engine) -> None:
        features = engine.encode(self.TEXTS)
        together = engine.predict_features(features)
        for index in range(len(features)):
            alone = engine.predict_features(features[index])
            for task, prediction in alone.items():
                assert np.array_equal(prediction.logits[0], together[task].logits[index])

    def test_chosen_tasks_come_in_the_order_asked_for(self, engine: Engine) -> None:
        everything = engine.predict(["text"])
        chosen = engine.predict(["text"], ["task-3", "task-0", "task-3"])
        assert list(chosen) == ["task-3", "task-0"]
        for task, prediction in chosen.items():
            assert np.array_equal(prediction.logits, everything[task].logits)
        assert list(engine.predict(["text"], "task-3")) == ["task-3"]
        assert len(engine.predict(["text"], [])) == 0

    def test_an_unknown_task_names_the_known_and_costs_no_encoder_pass(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def encode(*arguments: Any) -> None:
            pytest.fail("the encoder ran")

        features = engine.encode(["text"])
        monkeypatch.setattr(engine, "encode", encode)
        expected = r"^task 'nope': no such head is loaded, expected one of \['task-0', 'task-1'"
        for call in (
            lambda: engine.predict(["text"], ["task-0", "nope"]),
            lambda: engine.predict_features(features, ["nope"]),
        ):
            with pytest.raises(UnknownTaskError, match=expected):
                call()
        with pytest.raises(KeyError):
            engine.predict(["text"], ["nope"])

    def test_a_call_sees_the_heads_there_were_when_it_began(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encode = engine._encoder.encode

        def encode_while_a_head_goes(*arguments: Any) -> Any:
            engine.remove_head("task-2")
            return encode(*arguments)

        monkeypatch.setattr(engine._encoder, "encode", encode_while_a_head_goes)
        assert "task-2" in engine.predict(["text"])
        assert "task-2" not in engine.tasks

    def test_features_of_another_spec_name_both_ids(self, engine: Engine) -> None:
        other = make_spec()
        with pytest.raises(SpecMismatchError, match=rf"{other.id}.*{engine.spec.id}"):
            engine.predict_features(make_features(other, [3]))

    def test_stats_tell_the_cost_of_each_stage(self, engine: Engine) -> None:
        stats = engine.predict(self.TEXTS).stats
        assert stats.num_texts == 4
        assert stats.num_truncated == 1
        assert min(stats.tokenize_s, stats.encode_s, stats.pack_s, stats.heads_s) > 0
        stored = engine.predict_features(engine.encode(self.TEXTS)[1:3]).stats
        assert stored.encode_s == 0
        assert stored.heads_s > 0

    def test_an_engine_with_no_head_predicts_nothing(self, tiny_engine: Engine) -> None:
        predictions = tiny_engine.predict(["text"])
        assert len(predictions) == 0
        assert predictions.stats.num_texts == 1

    def test_no_texts(self, engine: Engine) -> None:
        for prediction in engine.predict([]).values():
            assert prediction.top == ()

    def test_predictions_are_a_mapping(self, engine: Engine) -> None:
        predictions = engine.predict(["text"])
        assert "task-1" in predictions
        assert set(predictions.keys()) == {f"task-{i}" for i in range(6)}
        assert "task-1" in repr(predictions)
        with pytest.raises(KeyError):
            predictions["nope"]


def test_uint8_features_carry_their_calibration() -> None:
    """Heads need no calibration, as it is folded into them; reading the numbers does."""
    spec = make_spec("uint8")
    calibration = Calibration(scale=np.ones(64, np.float32), zero_point=np.zeros(64, np.float32))
    features = replace(make_features(spec, [2, 3]), calibration=calibration)
    assert features[1].calibration is calibration
    assert_right(features, [random_head(spec)])
