"""Places of tokens by their own characters, against the tokenizer library's own answer."""

from __future__ import annotations

import random
import string
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import corpus
from tokenizers import Tokenizer

from benchmarks.inputs.tokenizer_kinds import KINDS
from bitheads.engine.features.words import words_of_tokens
from bitheads.engine.texts.token_places import TokenCharacters
from bitheads.engine.texts.tokenize import TextTokenizer

WITHOUT_BLANK_TOKENS = {
    *("bert", "bert, cased", "mpnet", "roberta", "modernbert", "gpt_neox", "qwen", "llama 3")
}
"""Kinds whose tokens say where they lie."""

ODD_TEXTS = (
    "",
    " ",
    "\n\n",
    "a  b   c    d",
    " lead",
    "trail \t",
    "[UNK] [SEP] [CLS] <s> </s> <unk> <|endoftext|> [MASK]",
    "x" * 130 + " " + "y" * 20,
    "##ing ing##",
    "control\x00\x07characters\x7f here\x1f.",
    "a.b@c.de (re: 50%...) -- `` '' $1,234.56 i.e. I'm",
    "tab\there\r\nline\x0bfeed\x0c",
    "UPPER lower MiXeD",
    "_ __ ___a_b_",
    "1234567890123 3.14159",
)


def drawn(count: int) -> list[str]:
    """Of any characters in ASCII, blanks most of all."""
    rng = random.Random(0)
    characters = "".join(map(chr, range(128))) + 60 * " " + 3 * string.ascii_letters
    return ["".join(rng.choices(characters, k=rng.randrange(50))) for _ in range(count)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_those_of_the_library_s_places(kind: str, saved: Path) -> None:
    KINDS[kind]().save_pretrained(saved / kind)
    path = saved / kind / "tokenizer.json"
    library = Tokenizer.from_file(str(path))
    assert (TokenCharacters.of(library) is not None) == (kind in WITHOUT_BLANK_TOKENS)
    tokenizer = TextTokenizer(path, 512)
    before = library.encode("a").special_tokens_mask.index(0)
    texts = [*corpus()[:200], *ODD_TEXTS, *drawn(500), "naïve", "日本語", "😀 a"]
    for text, found in zip(texts, tokenizer(texts, words=True), strict=True):
        encoding = library.encode(text, add_special_tokens=False)
        places = np.array(encoding.offsets, np.int32).reshape(-1, 2)
        (expected,) = words_of_tokens([text], places, [len(encoding)], before=before)
        assert found.words is not None
        assert found.words.tolist() == expected.tolist(), text


@pytest.mark.parametrize("kind", sorted(WITHOUT_BLANK_TOKENS))
def test_of_most_texts_the_library_is_not_asked(kind: str, saved: Path) -> None:
    """And never where the tokens' characters are not the text's."""
    KINDS[kind]().save_pretrained(saved / kind)
    library = Tokenizer.from_file(str(saved / kind / "tokenizer.json"))
    characters = TokenCharacters.of(library)
    assert characters is not None
    texts = [text for text in corpus() if text.isascii()]
    ids = [np.array(library.encode(t, add_special_tokens=False).ids, np.int32) for t in texts]
    places, holds = characters.places(texts, ids)
    assert holds.mean() > 0.9
    offsets = np.cumsum([0, *map(len, ids)])
    for i in np.flatnonzero(holds).tolist():
        for token, (start, end) in zip(ids[i], places[offsets[i] : offsets[i + 1]], strict=True):
            shown = library.id_to_token(int(token)).removeprefix("##").strip("Ġ▁")
            assert texts[i][start:end].strip().lower() == shown.lower()
    # One text's tokens changed, one's token left out, and a text's case and blanks.
    ids[3] = ids[3].copy()
    ids[3][0] = ids[5][-2] if ids[3][0] != ids[5][-2] else ids[5][0]
    ids[7] = ids[7][:-1]
    texts[9] = texts[9].upper().replace(" ", "  ")
    _, again = characters.places(texts, ids)
    assert not again[3]
    assert not again[7]
    assert np.array_equal(np.delete(again, [3, 7]), np.delete(holds, [3, 7]))
    nothing, of_nobody = characters.places([], [])
    assert nothing.shape == (0, 2)
    assert of_nobody.shape == (0,)
