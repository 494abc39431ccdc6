"""Pairs of texts that are encoded by themselves: an engine's answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from random_heads import random_head, random_span_head, three_two_texts_heads
from test_encode import texts_of_all_lengths
from test_load import say_of_encoder

from bitheads import Engine, InputError, PackedFeatures, Quantization, UnknownTaskError
from bitheads.engine.commands import predict as predict_command
from bitheads.engine.heads import float_heads, two_texts_reference
from bitheads.engine.heads.head_file import FoldedHead, write_head
from bitheads.engine.heads.reference import predict_head
from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Span
from bitheads.engine.types import Text

SINGLES = [text for text in texts_of_all_lengths()[:40:4] if text]
PAIRS: list[Text] = [*product(SINGLES[:3], SINGLES[2:6])]
MIXED = [SINGLES[0], PAIRS[0], SINGLES[0], *PAIRS[3:6], SINGLES[7], PAIRS[0]]


def heads_for(engine: Engine) -> list[FoldedHead]:
    spec = engine.spec
    decision = Decision(reject_above=0.1, reject_scale=1.5, abstain_below=0.4)
    return [
        random_head(spec, "tone"),
        random_span_head(spec, "names"),
        random_head(spec, "joint", form="pair", seed=1),
        *three_two_texts_heads(spec, decision),
    ]


def load(bundle: Path, folder: Path, tasks: tuple[str, ...] = ()) -> Engine:
    """All of the heads, or some."""
    engine = Engine.load(bundle, "onnxruntime")
    for head in heads_for(engine):
        if not tasks or head.task in tasks:
            path = folder / f"{head.task}.safetensors"
            write_head(head, path, force=True)
            engine.add_head(path)
    return engine


@pytest.fixture(scope="module", params=["sign", "uint8", "float16"])
def engine(
    request: pytest.FixtureRequest, build_bundle: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    bundle = build_bundle("bert", quantization=Quantization(request.param))
    with load(bundle, tmp_path_factory.mktemp("heads")) as engine:
        yield engine


@pytest.fixture(scope="module")
def sign_engine(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with load(tiny_bundle, tmp_path_factory.mktemp("heads")) as engine:
        yield engine


def same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def assert_same(engine: Engine, a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    """To the bit, but for float16: NumPy's products depend on what else is in them."""
    if engine.spec.quantization is Quantization.FLOAT16:
        np.testing.assert_allclose(a, b, atol=0.02)
    else:
        assert same(a, b)


def assert_alike(engine: Engine, a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    """Of texts that were encoded in other batches: to the bit of signs, and of uint8 as far as a
    sum may end on the other side of the middle between two codes."""
    if engine.spec.quantization is Quantization.UINT8:
        np.testing.assert_allclose(a, b, atol=0.05)
    else:
        assert_same(engine, a, b)


def assert_spans_alike(
    engine: Engine, a: tuple[tuple[Span, ...], ...], b: tuple[tuple[Span, ...], ...]
) -> None:
    """As logits are alike: the probabilities of codes that are no signs differ as those do."""
    if engine.spec.quantization is Quantization.SIGN:
        assert a == b
        return
    flat_a, flat_b = ([span for spans in each for span in spans] for each in (a, b))
    assert [*map(len, a)] == [*map(len, b)]
    assert [replace(span, probability=0) for span in flat_a] == [
        replace(span, probability=0) for span in flat_b
    ]
    np.testing.assert_allclose(
        [span.probability for span in flat_a], [span.probability for span in flat_b], atol=0.02
    )


def expected(
    head: FoldedHead, features: PackedFeatures, pairs: NDArray[np.int64]
) -> NDArray[np.float32]:
    spec = head.spec
    assert head.pair is not None
    if spec.quantization is not Quantization.FLOAT16:
        inputs = (features.codes, features.offsets, spec.dim, spec.quantization.value)
        return two_texts_reference.predict_pairs(*inputs, head, pairs)
    (vectors,) = float_heads.predict_heads(features, [head])
    rows = two_texts_reference.combine_texts(vectors, pairs)
    return predict_head(rows, np.arange(len(rows) + 1), rows.shape[1], "uint8", head.pair)


def test_predict_is_predict_pairs_is_the_reference(engine: Engine) -> None:
    features = engine.encode(SINGLES)
    rows = np.array([(SINGLES.index(a), SINGLES.index(b)) for a, b in PAIRS])
    by_text = engine.predict(PAIRS, ["apart", "near", "size"])
    by_code = engine.predict_pairs(features, rows)
    assert [*by_text] == [*by_code] == ["apart", "near", "size"]
    for head in heads_for(engine)[3:]:
        text, code = by_text[head.task], by_code[head.task]
        assert_alike(engine, text.logits, code.logits)
        outputs = code.logits
        if code.reject_logits is not None:
            assert text.reject_logits is not None
            assert_alike(engine, text.reject_logits, code.reject_logits)
            outputs = np.column_stack([outputs, code.reject_logits])
        assert_same(engine, outputs, expected(head, features, rows))
        assert outputs.std(axis=0).min() > 1e-2
    near = by_code["near"]
    assert near.reject_scores is not None
    wanted = (near.reject_scores <= np.float32(0.1)) & (near.probability >= np.float32(0.4))
    assert near.accepted.tolist() == wanted.tolist()


def test_each_text_is_encoded_once_and_no_pair(engine: Engine) -> None:
    stats = engine.predict(PAIRS, ["apart", "near"]).stats
    texts = {text for pair in PAIRS for text in pair}
    assert (stats.num_texts, stats.num_windows) == (len(PAIRS), len(texts))
    assert stats.num_tokens == engine.encode([*texts]).stats.num_tokens
    both = engine.predict(PAIRS, ["apart", "joint"]).stats
    assert (both.num_texts, both.num_windows) == (len(PAIRS), len(texts) + len(PAIRS))


def test_of_a_mixed_call_each_text_has_the_answers_that_it_has_alone(engine: Engine) -> None:
    answers = engine.predict(MIXED)
    is_pair = [isinstance(text, tuple) for text in MIXED]
    assert [*answers] == ["tone", "names", "joint", "apart", "near", "size"]
    assert answers.stats.num_texts == len(MIXED)
    for task, prediction in answers.items():
        of_pairs = task not in ("tone", "names")
        assert prediction.answered.tolist() == [of_pairs == pair for pair in is_pair]
        own = [text for text, pair in zip(MIXED, is_pair, strict=True) if pair == of_pairs]
        alone = engine.predict(own, [task])[task]
        chosen = prediction[np.array([i for i, p in enumerate(is_pair) if p == of_pairs])]
        assert_alike(engine, chosen.logits, alone.logits)
        assert_spans_alike(engine, chosen.spans, alone.spans)
        assert chosen.truncated_at == alone.truncated_at
        assert chosen.top == alone.top
        others = prediction[np.array([i for i, p in enumerate(is_pair) if p != of_pairs])]
        assert others.top == (None,) * others.num_texts
        assert not any(others.spans)
        assert not others.accepted.any()


def test_the_order_of_a_pair_and_of_pairs(engine: Engine) -> None:
    there = engine.predict(PAIRS, ["apart"])["apart"].logits
    back = engine.predict(PAIRS[::-1], ["apart"])["apart"].logits
    assert_alike(engine, there, back[::-1].copy())
    turned = engine.predict([(b, a) for a, b in PAIRS], ["apart"])["apart"].logits
    assert not np.allclose(there, turned)
    as_lists: Any = [[*pair] for pair in PAIRS]
    assert_alike(engine, engine.predict(as_lists, ["apart"])["apart"].logits, there)


def test_candidates_for_one_text(engine: Engine) -> None:
    features = engine.encode(SINGLES)
    rows = np.array([(0, i) for i in range(1, len(SINGLES))])
    found = engine.predict_pairs(features, rows, ["near"])["near"]
    pairs: list[Text] = [(SINGLES[0], text) for text in SINGLES[1:]]
    assert_alike(engine, found.logits, engine.predict(pairs, ["near"])["near"].logits)
    assert found.num_texts == len(pairs)


def test_only_texts_that_are_in_pairs_are_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = engine.encode(SINGLES)
    read = []
    vectors = engine.encoder.text_vectors

    def watched(some: PackedFeatures, heads: Any) -> Any:
        read.append(len(some))
        return vectors(some, heads)

    monkeypatch.setattr(engine.encoder, "text_vectors", watched)
    few = engine.predict_pairs(features, np.array([[5, 2], [2, 2], [5, 2]]), ["near"])["near"]
    assert read == [2]
    wanted = engine.predict_pairs(features[[5, 2]], np.array([[0, 1], [1, 1], [0, 1]]), ["near"])
    assert_same(engine, few.logits, wanted["near"].logits)


def test_a_text_beside_itself(engine: Engine) -> None:
    found = engine.predict([(SINGLES[0], SINGLES[0])], ["apart"])
    assert found.stats.num_windows == 1
    assert found["apart"].answered.all()


def test_no_texts_and_no_pairs(engine: Engine) -> None:
    assert engine.predict([])["apart"].top == ()
    assert engine.predict([], ["apart"])["apart"].top == ()
    features = engine.encode(SINGLES[:1])
    assert engine.predict_pairs(features, np.empty((0, 2), np.int64))["apart"].top == ()
    none: Any = []
    assert engine.predict_pairs(features, none)["apart"].top == ()


def test_single_texts_have_no_answer(engine: Engine) -> None:
    assert [*engine.predict(SINGLES)] == ["tone", "names"]
    with pytest.raises(
        InputError, match=r"'apart': its head reads pairs of texts, .* single texts"
    ):
        engine.predict(SINGLES, ["tone", "apart"])
    with pytest.raises(UnknownTaskError, match="heads of the forms pair and two_texts answer pair"):
        engine.predict(SINGLES)["apart"]


def test_codes_of_one_text_have_no_answer(engine: Engine) -> None:
    features = engine.encode(MIXED)
    assert [*engine.predict_features(features)] == ["tone", "joint"]
    assert "apart" not in engine.predict_features(replace(features, pairs=None))
    with pytest.raises(InputError, match=r"'apart': its head reads two texts .*predict_pairs,"):
        engine.predict_features(features, ["tone", "apart"])
    with pytest.raises(InputError, match="'joint': its head reads texts of the form 'pair', expec"):
        engine.predict_pairs(engine.encode(SINGLES), np.array([[0, 1]]), ["apart", "joint"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (np.zeros((2, 3), np.int64), r"pairs: got int64 \[2, 3\], expected int64 \[pairs, 2\]"),
        (np.zeros(2, np.int64), r"pairs: got int64 \[2\], expected"),
        (np.zeros((2, 2)), r"pairs: got float64 \[2, 2\], expected"),
        (np.array([[0, 1], [1, 9]]), r"pairs: got \[1, 9\] as pair 1, expected rows .*, 0 to 8\."),
        (np.array([[-1, 1]]), r"pairs: got \[-1, 1\] as pair 0, expected rows"),
        (np.array([[0, 2], [1, 2]]), r"pairs: got \[1, 2\] as pair 1, of which one was encoded as"),
    ],
)
def test_pairs_that_are_none(sign_engine: Engine, pairs: Any, message: str) -> None:
    features = sign_engine.encode([SINGLES[0], PAIRS[0], *SINGLES[:7]])
    assert len(features) == 9
    with pytest.raises(InputError, match=message):
        sign_engine.predict_pairs(features, pairs)


def test_any_integers_are_rows(sign_engine: Engine) -> None:
    features = sign_engine.encode(SINGLES)
    wanted = sign_engine.predict_pairs(features, np.array([[0, 1], [2, 1]]))["apart"].logits
    for rows in (
        np.array([[0, 1], [2, 1]], np.uint8),
        np.array([[0, 1], [2, 1]], np.int32, order="F"),
        [(0, 1), (2, 1)],
    ):
        given: Any = rows
        assert same(sign_engine.predict_pairs(features, given)["apart"].logits, wanted)


@pytest.mark.parametrize("texts", [[("a", "b"), 3], [("a", "b"), ("a", 3)], ("a", ("a", "b", "c"))])
def test_what_is_no_text_is_named_as_ever(sign_engine: Engine, texts: Any) -> None:
    with pytest.raises(InputError, match=r"text 1: got .*, expected a str or a pair of str"):
        sign_engine.predict(texts)


def test_texts_are_cut_and_split_by_themselves(sign_engine: Engine) -> None:
    long = "the tide was out and " * 100
    cut = sign_engine.predict([(long, "mud"), ("mud", "tide"), (long, long)], ["apart"])
    assert cut.stats.num_truncated == 2
    alone = sign_engine.encode([long, "mud"])
    again = sign_engine.predict_pairs(alone, np.array([[0, 1]]))["apart"]
    assert same(cut["apart"].logits[:1], again.logits)
    all_heads = sign_engine.predict([(long, "mud"), "mud", long])
    assert all_heads.stats.num_truncated == 2
    split = sign_engine.predict([(long, "mud")], ["apart"], long_texts="split")
    assert split.stats.num_truncated == 0
    whole = sign_engine.encode([long, "mud"], long_texts="split")
    again = sign_engine.predict_pairs(whole, np.array([[0, 1]]))["apart"]
    assert same(split["apart"].logits, again.logits)
    assert not same(split["apart"].logits, cut["apart"].logits[:1])


def test_an_encoder_that_reads_no_pairs_answers_pairs(own_bundle: Path, tmp_path: Path) -> None:
    """Where nothing has the texts joined."""
    say_of_encoder(own_bundle, token_types=1)
    with load(own_bundle, tmp_path, ("tone", "apart")) as engine:
        answers = engine.predict(MIXED)
        assert {*answers} == {"tone", "apart"}
        with pytest.raises(InputError, match="reads single texts only"):
            engine.encode(MIXED)


def test_what_a_loaded_head_says(sign_engine: Engine) -> None:
    info = sign_engine.tasks["apart"]
    assert (info.form, info.kind, len(info.labels)) == ("two_texts", "single_label", 3)
    assert info.nbytes > sign_engine.tasks["joint"].nbytes


def test_the_command_line(
    own_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with load(own_bundle, own_bundle / "heads") as engine:
        wanted = engine.predict(MIXED)
    texts = tmp_path / "texts.txt"
    lines = [text if isinstance(text, str) else "\t".join(text) for text in MIXED]
    texts.write_text("\n".join(lines), encoding="utf-8")
    options = ["--bundle", str(own_bundle), "--input", str(texts), "--backend", "onnxruntime"]
    assert predict_command.main([*options, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for i, row in enumerate(rows):
        pair = isinstance(MIXED[i], tuple)
        assert {*row["tasks"]} == (
            {"joint", "apart", "near", "size"} if pair else {"tone", "names"}
        )
        if pair:
            assert row["tasks"]["apart"]["label"] == wanted["apart"].top[i]
    assert predict_command.main(options) == 0
    table = capsys.readouterr().out
    assert "apart" in table
    assert f"{len(MIXED)} texts" in table
