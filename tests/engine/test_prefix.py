"""Prefixes: a text is tokenized behind one as transformers tokenizes the two in one string."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from causal_encoder import save_causal_encoder
from test_encode import STRANGE_TEXTS
from test_tokenizer import all_texts, assert_same_as_transformers, wordy
from tiny_encoders import FAMILIES, MAX_LENGTH
from tokenizers import Tokenizer

from bitheads import BundleError, Engine
from bitheads.engine.bundle import MANIFEST, read_manifest
from bitheads.engine.texts.tokenize import MAX_CHARS, TextTokenizer
from bitheads.engine.types import Text

PREFIXES = ("query: ", "Instruct: Find the tide.\nQuery:", "  \u00e9 ", "tide", "\u6f6e")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[[str], Path]) -> Path:
    """The folder of a tiny encoder of every family, and of a causal one."""
    folder = tmp_path_factory.mktemp("sources")
    for family in FAMILIES:
        shutil.copytree(tiny_encoder(family), folder / family)
    save_causal_encoder(folder / "causal")
    return folder


@pytest.fixture(params=[*FAMILIES, "causal"])
def encoder(source: Path, request: pytest.FixtureRequest) -> Path:
    return source / str(request.param)


def set_prefix(bundle: Path, prefix: str) -> None:
    """As if it had been built with that."""
    manifest = read_manifest(bundle)
    changed = replace(manifest, spec=replace(manifest.spec, prefix=prefix))
    (bundle / MANIFEST).write_text(changed.dumps(), encoding="utf-8")


def tokenizer_of(encoder: Path, prefix: str, max_length: int = MAX_LENGTH) -> TextTokenizer:
    return TextTokenizer(encoder / "tokenizer.json", max_length, prefix=prefix)


def prefixed(prefix: str, texts: list[Text]) -> list[Text]:
    return [prefix + t if isinstance(t, str) else (prefix + t[0], t[1]) for t in texts]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_ids_are_those_of_the_whole_string(encoder: Path, prefix: str) -> None:
    """Of texts and pairs, cut ones among them; texts of all kinds may join with the prefix."""
    texts = all_texts()
    got = tokenizer_of(encoder, prefix)(texts)
    assert_same_as_transformers(got, str(encoder), prefixed(prefix, texts), MAX_LENGTH)
    bare = tokenizer_of(encoder, "")(texts)
    assert sum(a.ids.tolist() != b.ids.tolist() for a, b in zip(got, bare, strict=True)) > 40


def test_cut_pairs_keep_the_prefix(encoder: Path) -> None:
    rng = np.random.default_rng(1)
    sizes = [(1, 80), (80, 1), (50, 51), (51, 50), (0, 100), (100, 0), (30, 30)]
    texts: list[Text] = [(wordy(rng, a), wordy(rng, b)) for a, b in sizes]
    for max_length in (24, MAX_LENGTH):
        got = tokenizer_of(encoder, "tide: ", max_length)(texts)
        assert_same_as_transformers(got, str(encoder), prefixed("tide: ", texts), max_length)


@pytest.mark.parametrize("words", [2000, 200_000])
def test_texts_that_are_not_read_whole(encoder: Path, words: int) -> None:
    """A limit on characters is of the prefix and the text together."""
    texts: list[Text] = ["mud " * words, ("mud " * words, "tide " * words), " " * words]
    got = tokenizer_of(encoder, "query: ")(texts)
    expected = tokenizer_of(encoder, "")(prefixed("query: ", texts))
    for one, other in zip(got, expected, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert (one.num_first, one.truncated) == (other.num_first, other.truncated)


@pytest.mark.parametrize("prefix", ["query: ", "Instruct: tide\nQuery:"])
def test_every_window_begins_with_the_prefix(encoder: Path, prefix: str) -> None:
    """The windows together hold the tokens of the whole, and each is as a text of its own."""
    tokenizer, bare = tokenizer_of(encoder, prefix), tokenizer_of(encoder, "")
    (own,) = bare([""])
    (end,) = own.ids[-1:]
    start = own.ids.size - 1
    text = "the tide was out " * 60
    windows = tokenizer([text], split=True)
    assert len(windows) > 3
    assert [w.continues for w in windows] == [False] + [True] * (len(windows) - 1)
    assert all(w.ids.size == MAX_LENGTH for w in windows[:-1])
    assert not any(w.truncated for w in windows)
    inner = [w.ids[start:-1].tolist() for w in windows]
    assert all(w.ids[-1] == end for w in windows)
    head = bare([prefix.rstrip(" ")])[0].ids[start:-1].tolist()
    assert all(ids[: len(head)] == head for ids in inner)
    (whole,) = tokenizer_of(encoder, "", 1 << 20)([prefix + text])
    together = [*inner[0], *(id for ids in inner[1:] for id in ids[len(head) :])]
    assert together == whole.ids[start:-1].tolist()


@pytest.mark.parametrize("family", ["roberta", "causal"])
def test_a_window_is_as_the_prefix_and_its_text(source: Path, family: str) -> None:
    """Where it begins with a word, whose token has the blank at the prefix's end."""
    library = Tokenizer.from_file(str(source / family / "tokenizer.json"))
    rng = np.random.default_rng(0)
    windows = tokenizer_of(source / family, "query: ")([wordy(rng, 900)], split=True)
    texts = {library.decode(window.ids.tolist()): window for window in windows[1:-1]}
    with_words = [text for text in texts if text.startswith("query: ")]
    for text in with_words:
        got = texts[text].ids[: MAX_LENGTH // 2].tolist()  # the last word may be half
        assert library.encode(text).ids[: MAX_LENGTH // 2] == got
    assert len(with_words) > 2


def test_endless_texts_are_cut_with_the_prefix(source: Path) -> None:
    bare = tokenizer_of(source / "bert", "", 1 << 20)
    windows = tokenizer_of(source / "bert", "tide: ")(["a " * MAX_CHARS], split=True)
    assert [w.truncated for w in windows] == [True] + [False] * (len(windows) - 1)
    head = bare(["tide:"])[0].ids.size - 2
    (read,) = bare([("tide: " + "a " * MAX_CHARS)[: MAX_CHARS - 1]], split=True)
    assert sum(w.ids.size - 2 - head for w in windows) == read.ids.size - 2 - head


@pytest.mark.parametrize("takes_pairs", [True, False])
def test_a_prefix_leaves_room_for_texts(source: Path, takes_pairs: bool) -> None:
    """Whatever is cut, each text of a pair keeps a token, and the first one the prefix."""
    path, types = source / "bert" / "tokenizer.json", 2 if takes_pairs else 1

    def made(words: int) -> TextTokenizer:
        return TextTokenizer(path, MAX_LENGTH, None, types, "a " * words)

    most = (MAX_LENGTH - 3) // 2 - 1 if takes_pairs else MAX_LENGTH - 2 - 1
    tokenizer = made(most)
    texts: list[Text] = ["tide", *[("tide", "mud " * 100), ("tide " * 99, "mud")] * takes_pairs]
    (a,) = set(tokenizer(["a"])[0].ids[1 : most + 2].tolist())
    for tokens in tokenizer(texts):
        assert (tokens.ids[1 : most + 1] == a).all()
        assert tokens.ids[most + 1] != a
    message = rf'prefix "a a .*: got {most + 1} tokens and {2 * most + 2} characters, expected at '
    message += rf"most {most} and 512, .* maximum length is {MAX_LENGTH}\."
    with pytest.raises(BundleError, match=message):
        made(most + 1)
    with pytest.raises(BundleError, match=r"got 0 tokens and 513 characters, expected .* 512"):
        TextTokenizer(path, MAX_LENGTH, None, types, " " * 513)


def test_a_bundle_has_its_prefix(own_bundle: Path) -> None:
    """A bundle's texts have the codes that the same texts with the prefix have in one without."""
    texts = [*STRANGE_TEXTS.values(), ("the tide", "was out"), "mud " * 100]
    with Engine.load(own_bundle, backend="onnxruntime") as engine:
        expected = engine.encode(prefixed("query: ", texts), 1)
        bare = engine.spec
    set_prefix(own_bundle, "query: ")
    with Engine.load(own_bundle, backend="onnxruntime") as engine:
        got = engine.encode(texts, 1)
        assert engine.spec.prefix == "query: "
        assert engine.spec.id != bare.id
        np.testing.assert_array_equal(got.offsets, expected.offsets)
        np.testing.assert_array_equal(got.codes, expected.codes)
        parts = list(engine.encode_stream(texts, chunk_texts=7, max_batch_tokens=1))
        np.testing.assert_array_equal(np.concatenate([p.codes for p in parts]), expected.codes)
    set_prefix(own_bundle, "tide " * 60)
    with pytest.raises(BundleError, match=r'prefix "tide tide .* so that texts have room'):
        Engine.load(own_bundle, backend="onnxruntime")
