"""Nobody gets an answer that a head was not made for: single texts and pairs, wherever asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_head

from bitheads import Engine, InputError, PackedFeatures, UnknownTaskError
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.texts.forms import are_pairs

SINGLES = ["What a lovely film.", "It rained all night."]
PAIR = ("Is it raining?", "Does it rain?")


@pytest.fixture(params=["sign", "float16"])
def engine(request: pytest.FixtureRequest, build_bundle: Any, tmp_path: Path) -> Iterator[Engine]:
    """With a head for texts and one for pairs, of each kind of codes that has its own kernels."""
    from bitheads.engine.features.spec import Quantization

    bundle = build_bundle("bert", quantization=Quantization(request.param))
    with Engine.load(bundle, "onnxruntime") as engine:
        for seed, (task, form) in enumerate((("tone", "single"), ("same", "pair"))):
            path = tmp_path / f"{task}.safetensors"
            write_head(random_head(engine.spec, task=task, form=form, seed=seed), path)
            engine.add_head(path)
        yield engine


def test_a_head_for_pairs_does_not_answer_single_texts(engine: Engine) -> None:
    answers = engine.predict(SINGLES)
    assert [*answers] == ["tone"]
    with pytest.raises(UnknownTaskError, match="task 'same': not among the answers"):
        answers["same"]
    assert [*engine.predict([PAIR])] == ["same"]


def test_a_task_by_name_that_is_for_none_of_the_texts(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"'same': its head reads pairs .* single texts\. Pass"):
        engine.predict(SINGLES, ["tone", "same"])
    with pytest.raises(InputError, match=r"'tone': its head reads single texts, .* are pairs\."):
        engine.predict([PAIR, list(PAIR)], ["tone"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="'same': its head reads pairs"):
        engine.predict_features(engine.encode(SINGLES), ["same"])


def test_each_text_of_a_mixed_call_is_answered_by_the_heads_of_its_form(engine: Engine) -> None:
    texts = [SINGLES[0], PAIR, SINGLES[1]]
    for answers in (
        engine.predict(texts),
        engine.predict(texts, ["tone", "same"]),
        engine.predict_features(engine.encode(texts)),
    ):
        tone, same = answers["tone"], answers["same"]
        assert tone.answered.tolist() == [True, False, True]
        assert same.answered.tolist() == [False, True, False]
        assert tone.top[1] is same.top[0] is same.top[2] is None
        alone = engine.predict(SINGLES)["tone"]
        np.testing.assert_allclose(tone.logits[[0, 2]], alone.logits, atol=1e-2)
        assert (tone.top[0], tone.top[2]) == alone.top
        pair_alone = engine.predict([PAIR])["same"]
        np.testing.assert_allclose(same.logits[1:2], pair_alone.logits, atol=1e-2)
        assert np.isnan(same.probabilities[0]).all()


def test_no_texts_have_no_form(engine: Engine) -> None:
    assert engine.predict([])["same"].top == ()
    assert engine.predict([], ["same"])["same"].top == ()


def test_features_know_their_forms_through_everything(engine: Engine) -> None:
    texts = [SINGLES[0], PAIR, SINGLES[1], PAIR]
    features = engine.encode(texts)
    assert features.pairs is not None
    assert features.pairs.tolist() == are_pairs(texts).tolist() == [False, True, False, True]
    mask = np.array([False, True, True, False])
    for chosen, pairs in (
        (features[1:3], [True, False]),
        (features[[3, 0]], [True, False]),
        (features[mask], [True, False]),
        (features[3], [True]),
        (PackedFeatures.concat([features[1:2], features[:1]]), [True, False]),
    ):
        assert chosen.pairs is not None
        assert chosen.pairs.tolist() == pairs
    (part,) = engine.encode_stream(iter(texts))
    assert part.pairs is not None
    assert part.pairs.tolist() == features.pairs.tolist()
    assert engine.encode(["word " * 300, SINGLES[0]], long_texts="split").pairs is not None

    unknown = replace(features, pairs=None)
    assert PackedFeatures.concat([features, unknown]).pairs is None
    assert {*engine.predict_features(unknown)} == {"tone", "same"}  # the caller answers for it
    with pytest.raises(InputError, match=r"pairs: got bool \[3\], expected bool \[4\]"):
        replace(features, pairs=features.pairs[:3])
