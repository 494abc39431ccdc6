"""Words of a text, and which tokens are theirs; judged by Unicode's tables, and by the text."""

from __future__ import annotations

import random
import re
import string
import unicodedata
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import corpus
from tokenizers import Tokenizer, decoders

from benchmarks.inputs.tokenizer_kinds import KINDS
from bitheads import Engine
from bitheads.engine.batching import words_of_windows
from bitheads.engine.bundle import TOKENIZER
from bitheads.engine.features.words import ALONE, BLANK, Words, find_words, words_of_tokens
from bitheads.engine.texts.tokenize import MAX_CHARS, TextTokenizer

EVERY_CHARACTER = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
ODD_TEXTS = (
    "Mr. O'Neil's e-mail: a.b@c.de (re: 50%...)",
    "😀 Lise Meitner (1878-1968) 👍🏽👨‍👩‍👧",
    "naïve café Ångström ﬁne",
    "日本語のテキスト",
    "tab\there\nline",
    "a  b   c",
    "don't  stop…",
    "x" * 120 + " y",
    "😀",
    " lead",
    "trail ",
    "",
    "  ",
)


def languages() -> list[str]:
    source = files("bitheads.export") / "data" / "languages.txt"
    return source.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def sorts() -> dict[str, list[str]]:
    """All characters by what they do to what is on both sides of them."""
    places = find_words("".join(f"a{c}b\n" for c in EVERY_CHARACTER))
    of_character, starts, ends = places[:, 0] // 4, places[:, 0] % 4, places[:, 1] % 4
    assert np.array_equal(of_character, places[:, 1] // 4)
    shapes: list[list[tuple[int, int]]] = [[] for _ in EVERY_CHARACTER]
    for at, place in zip(
        of_character.tolist(), zip(starts.tolist(), ends.tolist(), strict=True), strict=True
    ):
        shapes[at].append(place)
    names = {((0, 3),): "of a run", ((0, 1), (2, 3)): "blank", ((0, 1), (1, 2), (2, 3)): "alone"}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for character, shape in zip(EVERY_CHARACTER, shapes, strict=True):
        found[names[tuple(shape)]].append(character)
    return found


def test_blanks_are_those_of_unicode(sorts: dict[str, list[str]]) -> None:
    """White_Space: separators, and six control characters."""
    separators = {c for c in EVERY_CHARACTER if unicodedata.category(c)[0] == "Z"}
    assert {*sorts["blank"]} == separators | {*"\t\n\v\f\r\x85"}
    assert {c for c in EVERY_CHARACTER if c.isspace()} - {*sorts["blank"]} == {*"\x1c\x1d\x1e\x1f"}


def test_what_is_a_word_by_itself(sorts: dict[str, list[str]]) -> None:
    alone = {*sorts["alone"]}
    assert alone.issuperset(string.punctuation)
    latin = {chr(i) for i in range(256)}
    assert alone.issuperset(c for c in latin if unicodedata.category(c)[0] in "PS")
    assert alone.issuperset("€–—‘’“”…→√、。「」中国語漢﨑𠮷！？😀👍🏽")  # noqa: RUF001
    # In the Unicode of any Python, but for what it changed its mind about.
    old, new = unicodedata.ucd_3_2_0.category, unicodedata.category
    assert alone.issuperset(c for c in map(chr, range(0x10000)) if old(c)[0] == new(c)[0] == "P")
    assert alone.isdisjoint("éÅßﬁªºµひらがなカタカナ한글ไทยعربي\u200d\u0301")
    # No letter but ideographs, no digit, and no mark of the character before it.
    letters = {c for c in alone if unicodedata.category(c)[0] == "L"}
    assert {unicodedata.name(c).split()[0] for c in letters} <= {"CJK", "MASU"}
    assert {unicodedata.category(c) for c in alone - letters} <= {
        *("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "No", "Cf", "Cn")
    }


def test_many_characters_are_as_the_rule_says(sorts: dict[str, list[str]]) -> None:
    """The same rule as a regular expression."""
    rule = re.compile(f"[{ALONE}]|[^{ALONE}{BLANK}]+")
    rng = random.Random(0)
    for _ in range(300):
        drawn = [rng.choice(sorts[rng.choice([*sorts])]) for _ in range(rng.randrange(40))]
        text = "".join(drawn)
        assert find_words(text).tolist() == [[*match.span()] for match in rule.finditer(text)]
    assert find_words("").shape == find_words("  ").shape == (0, 2)
    assert find_words("a").dtype == np.int32


def words_by_hand(text: str, tokens: list[tuple[int, int]]) -> list[list[int]]:
    """Word by word and token by token."""
    found = []
    taken: set[int] = set()
    for start, end in find_words(text).tolist():
        # A token is the first word's that ends behind the token's start.
        own = [
            i
            for i, (first, last) in enumerate(tokens)
            if i not in taken and first < end and start < last
        ]
        taken.update(own)
        if own:
            run = [i for n, i in enumerate(own) if i == own[0] + n]
            found.append([own[0], len(run), start, end])
    return found


CASES: dict[str, tuple[str, list[tuple[int, int]], list[list[int]]]] = {
    "a token each": ("ab cd", [(0, 2), (3, 5)], [[0, 1, 0, 2], [1, 1, 3, 5]]),
    "pieces": ("abcd e", [(0, 2), (2, 4), (5, 6)], [[0, 2, 0, 4], [2, 1, 5, 6]]),
    "no words": (" \t", [(0, 1)], []),
    "no tokens": ("ab cd", [], []),
    "neither": ("", [], []),
    "blanks are of a token": ("ab cd", [(0, 2), (2, 5)], [[0, 1, 0, 2], [1, 1, 3, 5]]),
    "a token of several words": ("a...", [(0, 1), (1, 4)], [[0, 1, 0, 1], [1, 1, 1, 2]]),
    "a token over a word's end": ("-up", [(0, 2), (2, 3)], [[0, 1, 0, 1], [1, 1, 1, 3]]),
    "a word without a token": ("a \x07 b", [(0, 1), (4, 5)], [[0, 1, 0, 1], [1, 1, 4, 5]]),
    "tokens of no character": (
        "ab cd",
        [(0, 0), (0, 2), (2, 2), (3, 5), (5, 5)],
        [[1, 1, 0, 2], [3, 1, 3, 5]],
    ),
    "a word that is interrupted": (
        "abcd e",
        [(0, 2), (0, 0), (2, 4), (5, 6)],
        [[0, 1, 0, 4], [3, 1, 5, 6]],
    ),
    "nothing within a word": (
        "abcd e",
        [(0, 2), (2, 2), (2, 4), (5, 6)],
        [[0, 3, 0, 4], [3, 1, 5, 6]],
    ),
    "several tokens of a character": (
        "😀 a",
        [(0, 1), (0, 1), (2, 3)],
        [[0, 2, 0, 1], [2, 1, 2, 3]],
    ),
    "a token of the blank": ("a  b", [(0, 1), (1, 2), (2, 4)], [[0, 1, 0, 1], [2, 1, 3, 4]]),
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_of_words(case: str) -> None:
    text, tokens, expected = CASES[case]
    table = np.array(tokens, np.int32).reshape(-1, 2)
    (found,) = words_of_tokens([text], table, [len(tokens)])
    assert found.tolist() == expected
    assert found.dtype == np.int32
    # Behind a prefix of five characters and two tokens, of which one is half the text's.
    shifted = np.array([(0, 4), *((s + 5, e + 5) for s, e in tokens)], np.int32).reshape(-1, 2)
    (found,) = words_of_tokens(["pre: " + text], shifted, [len(shifted)], shift=5, before=3)
    assert found.tolist() == [[token + 4, *rest] for token, *rest in expected]


def test_texts_go_together_as_they_go_alone() -> None:
    texts, tokens = zip(*((text, tokens) for text, tokens, _ in CASES.values()), strict=True)
    flat = np.array([place for one in tokens for place in one], np.int32)
    found = words_of_tokens(texts, flat, [*map(len, tokens)])
    assert [table.tolist() for table in found] == [expected for *_, expected in CASES.values()]
    assert words_of_tokens([], np.empty((0, 2), np.int32), []) == []


def test_drawn_tokens() -> None:
    """Texts and tokens of any kind, all together, against word by word."""
    rng = random.Random(1)
    texts, tokens = [], []
    for _ in range(200):
        text = "".join(rng.choices("ab .é中😀-", k=rng.randrange(30)))
        places, at = [], 0
        while at < len(text):
            end = min(len(text), at + rng.randrange(4))
            if rng.random() < 0.8:
                places.append((at, end))
            at = max(end, at + rng.randrange(2))
        texts.append(text)
        tokens.append(places)
    flat = np.array([place for one in tokens for place in one], np.int32)
    found = words_of_tokens(texts, flat, [*map(len, tokens)])
    for text, places, table in zip(texts, tokens, found, strict=True):
        assert table.tolist() == words_by_hand(text, places), (text, places)


def plain(text: str) -> str:
    """What normalizers leave of a text, whatever they do: no case, accents, blanks or controls."""
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] not in "MCZ")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.mark.parametrize("prefix", ["", "query: "])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_a_word_say_the_word(kind: str, prefix: str, saved: Path) -> None:
    """As the library itself puts tokens back together, whatever it says of their places."""
    KINDS[kind]().save_pretrained(saved / kind)
    path = saved / kind / "tokenizer.json"
    library, tokenizer = Tokenizer.from_file(str(path)), TextTokenizer(path, 512, prefix=prefix)
    if library.decoder is None:  # transformers' own class does without
        is_of_bytes = library.encode("a b", add_special_tokens=False).tokens[1].startswith("Ġ")
        of_pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        library.decoder = decoders.ByteLevel() if is_of_bytes else decoders.Sequence(of_pieces)
    unknown = {library.token_to_id(name) for name in ("[UNK]", "<unk>")}
    texts = [*languages(), *corpus()[:100], *ODD_TEXTS]
    words = checked = 0
    for text, tokens in zip(texts, tokenizer(texts, words=True), strict=True):
        assert tokens.words is not None
        if unknown.intersection(tokens.ids.tolist()):
            continue
        owns = [
            library.decode(tokens.ids[first : first + count].tolist(), False)
            for first, count, *_ in tokens.words.tolist()
        ]
        # A token of bytes may be of the end of one character and the beginning of the next.
        if "\ufffd" in "".join(owns) and "\ufffd" not in text:
            continue
        told = ""
        for own, (_, _, start, end) in zip(owns, tokens.words.tolist(), strict=True):
            assert text[start:end] == "".join(text[start:end].split()) != ""
            assert len(plain(text[:start])) <= len(told) < len(plain(text[:end])) or not plain(
                text[start:end]
            )
            told += plain(own.removeprefix("##"))
            words += 1
        assert told == plain(text), "all that the text says, and in order"
        checked += 1
    assert words > 1500
    assert checked > 100


@pytest.fixture
def tokenizer(tiny_engine: Engine) -> TextTokenizer:
    return tiny_engine._tokenizer


def words_of(windows: Iterable[object]) -> Words:
    return words_of_windows([*windows])  # type: ignore[list-item]


@pytest.mark.parametrize("prefix", ["", "query: "])
def test_a_word_in_two_windows(tiny_bundle: Path, prefix: str) -> None:
    """It is read in the first, as far as that goes, and each word is read once."""
    path = tiny_bundle / TOKENIZER
    short, long = (TextTokenizer(path, length, prefix=prefix) for length in (12, 512))
    text = " ".join(["unaffable embeddings-of", "running;", "words"] * 9)
    (whole,) = long([text], words=True)
    windows = short([text], split=True, words=True)
    assert len(windows) > 5
    assert whole.words is not None
    found = words_of(windows)
    assert found.truncated_at.tolist() == [-1]
    assert found.table[:, 2:].tolist() == whole.words[:, 2:].tolist()
    ids = np.concatenate([window.ids for window in windows])
    of_two = 0
    for (first, count, *_), (token, tokens, *_) in zip(
        found.table.tolist(), whole.words.tolist(), strict=True
    ):
        assert 1 <= count <= tokens
        assert ids[first : first + count].tolist() == whole.ids[token : token + count].tolist()
        of_two += count < tokens
    assert 0 < of_two < len(windows)
    (cut,) = short([text], words=True)
    read = words_of([cut])
    assert read.table.tolist() == found.table[: len(read.table)].tolist()
    assert read.truncated_at.tolist() == [read.table[-1, 3]]
    assert read.table[-1, :2].sum() <= cut.ids.size - 1, "the last token is the tokenizer's own"


def test_texts_that_are_cut_before_they_are_tokenized(tiny_bundle: Path) -> None:
    """One far over the limit, one endless word, and one of blanks."""
    tokenizer = TextTokenizer(tiny_bundle / TOKENIZER, 16)
    texts = ["unaffable " * 5000, "x" * (MAX_CHARS + 5), " " * 9000 + "end", "short"]
    alone = [tokenizer([text], words=True)[0] for text in texts]
    together = tokenizer(texts, words=True)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.words, other.words)
    found = words_of(together)
    assert (found.truncated_at >= 0).tolist() == [window.truncated for window in together]
    at = int(found.truncated_at[0])
    assert texts[0][:at].endswith("unaffable")
    for text, row in zip(texts, range(len(texts)), strict=True):
        table = found[np.array([row])].table
        assert all(
            text[start:end].strip() == text[start:end] for _, _, start, end in table.tolist()
        )
        assert (table[:, 3] <= len(text)).all()


def test_a_word_s_end_is_its_own(tokenizer: TextTokenizer) -> None:
    """Not its last token's: what a normalizer drops is of the word, wherever it is in the text."""
    (middle, last) = tokenizer(["ab\u0301\u200d cd", "cd ab\u0301\u200d"], words=True)
    assert middle.words is not None
    assert last.words is not None
    assert middle.words[:, 2:].tolist() == [[0, 4], [5, 7]]
    assert last.words[:, 2:].tolist() == [[0, 2], [3, 7]]


def test_pairs_have_no_words(tokenizer: TextTokenizer) -> None:
    single, pair = tokenizer(["one two", ("a", "pair")], words=True)
    assert pair.words is None
    assert single.words is not None
    found = words_of([single, pair])
    assert found.is_single.tolist() == [True, False]
    assert found.offsets.tolist() == [0, 2, 2]
    assert all(one.words is None for one in tokenizer(["one two", ("a", "pair")]))
