"""Texts over the maximum length, split: every token is encoded, in windows."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from random_heads import random_head
from test_encode import bits_that_differ, texts_of_all_lengths
from tokenizers import Tokenizer

from bitheads import Engine, InputError, PackedFeatures
from bitheads.engine.bundle import TOKENIZER
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.texts.tokenize import MAX_CHARS, TextTokenizer


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return Engine.load(tiny_bundle, backend="onnxruntime")


@pytest.fixture(scope="module")
def tokenizer(engine: Engine) -> TextTokenizer:
    return engine._tokenizer


@pytest.fixture(scope="module")
def library(tiny_bundle: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_bundle / TOKENIZER))


def words(count: int) -> str:
    return " ".join((texts_of_all_lengths() * 3)[-1 - i].split()[0] for i in range(count))


@pytest.mark.parametrize("num_words", [0, 1, 40, 70, 200, 3000])
def test_windows_hold_all_tokens_of_the_text(
    engine: Engine, tokenizer: TextTokenizer, library: Tokenizer, num_words: int
) -> None:
    """Also of texts of so many characters that they are not read whole where they are cut."""
    max_length = engine.manifest.encoder.max_length
    text = "the tide was out and " * (num_words // 5) + "mud " * (num_words % 5)
    windows = tokenizer([text], split=True)
    whole = library.encode(text)
    first, *inner, last = whole.ids
    assert [id for window in windows for id in window.ids[1:-1]] == inner
    assert all((window.ids[0], window.ids[-1]) == (first, last) for window in windows)
    assert all(window.ids.size == max_length for window in windows[:-1])
    assert windows[-1].ids.size <= max_length
    assert [window.continues for window in windows] == [False] + [True] * (len(windows) - 1)
    assert not any(window.truncated for window in windows)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_windows_begin_where_the_maximum_length_ends(
    engine: Engine, tokenizer: TextTokenizer, extra: int
) -> None:
    room = engine.manifest.encoder.max_length - 2
    windows = tokenizer(["the " * (room + extra)], split=True)
    assert len(windows) == (2 if extra == 1 else 1)
    assert sum(window.ids.size - 2 for window in windows) == room + extra


def test_texts_that_fit_are_the_same_split_or_cut(engine: Engine) -> None:
    texts = [*texts_of_all_lengths()[:20], "", ("the tide", "was out")]
    cut, split = (engine.encode(texts, 1, long_texts=way) for way in ("cut", "split"))
    assert bits_that_differ(cut, split) == 0


def test_codes_of_a_split_text_are_those_of_its_windows(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """One token a word here, so that the windows are known as texts."""
    room = engine.manifest.encoder.max_length - 2
    parts = ["the " * room, "was " * room, "out " * 3]
    texts = ["a boat", "".join(parts), "on its side"]
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        features = engine.encode(texts, 1, long_texts="split")
    assert caplog.text == ""
    expected = engine.encode([texts[0], *parts, texts[2]], 1)
    assert len(features) == 3
    assert (features.codes == expected.codes).all()
    assert features.num_tokens[1] == expected.num_tokens[1:4].sum()
    stats = features.stats
    assert (stats.num_texts, stats.num_windows, stats.num_truncated) == (3, 5, 0)


def test_answers_are_of_all_windows(own_bundle: Path) -> None:
    engine = Engine.load(own_bundle, backend="onnxruntime")
    path = own_bundle / "tone.safetensors"
    write_head(random_head(engine.spec, task="tone"), path)
    engine.add_head(path)
    texts = ["the tide " * 200, "a boat"]
    split = engine.predict(texts, long_texts="split")
    expected = engine.predict_features(engine.encode(texts, long_texts="split"))
    assert (split["tone"].logits == expected["tone"].logits).all()
    cut = engine.predict(texts)
    assert (split["tone"].logits[0] != cut["tone"].logits[0]).any()
    assert np.allclose(split["tone"].logits[1], cut["tone"].logits[1], atol=1e-3)


def test_pairs_are_not_split(engine: Engine) -> None:
    pair = ("the tide " * 200, "was out")
    with pytest.raises(InputError, match=r"text 1: got a pair of \d+ tokens.*long_texts='cut'"):
        engine.encode(["a boat", pair], long_texts="split")
    assert len(engine.encode(["a boat", pair])) == 2


def test_endless_texts_are_cut_all_the_same(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    text = "the " * (MAX_CHARS // 4 + 1000)
    windows = engine._tokenizer(["a boat", text], split=True)
    assert sum(window.truncated for window in windows) == 1
    assert sum(window.ids.size - 2 for window in windows[1:]) == MAX_CHARS // 4
    with (
        caplog.at_level(logging.WARNING, logger="bitheads"),
        engine._passes.tokenized([text], None, split=True) as chunks,
    ):
        assert [work.stats.num_truncated for work in chunks] == [1]
    assert f"1 of 1 texts were longer than {MAX_CHARS} characters" in caplog.text


def test_an_unknown_way_is_an_error(engine: Engine) -> None:
    message = r"long_texts: got 'drop', expected one of \['cut', 'split'\]"
    for call in (engine.encode, engine.predict, engine.encode_stream):
        with pytest.raises(InputError, match=message):
            call(["text"], long_texts="drop")


def test_parts_of_a_stream_are_split_too(engine: Engine) -> None:
    texts = ["the tide " * 200, "a boat"] * 3
    parts = list(engine.encode_stream(texts, chunk_texts=2, long_texts="split"))
    together = engine.encode(texts, long_texts="split")
    assert PackedFeatures.concat(parts).offsets.tolist() == together.offsets.tolist()
