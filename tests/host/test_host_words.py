"""The words of texts and their tokens in C++, beside Python's, which has the library's own places.

The host's tokenizer gives ids alone: where a word's tokens are is found out by encoding parts of a
text once more. What that makes of tokenizers of every kind is judged here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
from host_build import build, run
from tokenizers import Tokenizer

from benchmarks import __main__ as command_line
from benchmarks.contenders.host_words import add_graph, is_same, with_the_same_ids
from benchmarks.host_words import table
from benchmarks.host_words.measure import real_texts
from benchmarks.inputs.tokenizer_kinds import KINDS, corpus
from bitheads.engine.features.words import BLANK, find_words
from bitheads.engine.texts.tokenize import Tokens
from bitheads.export.tokenizer.blanks import blank_tokens
from bitheads.export.tokenizer.odd_texts import tokenizer_texts

LEAST_REAL, LEAST_ODD = 0.995, 0.97
"""The least share of texts with the same words. Vocabularies are learnt of the manual of the Python
that runs, so that some have a token of the end of one character and the beginning of the next."""


@pytest.fixture(scope="session")
def program(host_build: Path) -> Path:
    """tests/host/find_words.cpp, built."""
    build(host_build, "find_words")
    return host_build / "find_words"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def folder_of(kind: str, saved: Path) -> Path:
    """With a tokenizer.json and its graph."""
    folder = saved / kind.replace(" ", "-")
    if not folder.exists():
        KINDS[kind]().save_pretrained(folder)
        add_graph(folder)
    return folder


def compare(
    program: Path, folder: Path, texts: Sequence[str], max_length: int = 512, prefix: str = ""
) -> tuple[float, list[Tokens]]:
    """The share of texts with the same words, of those with the same ids; and Python's tokens."""
    compared = with_the_same_ids(program, folder, texts, max_length, prefix)
    assert len(compared) >= 0.95 * len(texts)
    for text, found, _ in compared:
        letters = text.encode()
        for (_, _, start, end), (first, last) in zip(found.words, found.places, strict=True):
            assert text[start:end].encode() == letters[first:last]
    same = [is_same(found, own) for _, found, own in compared]
    return sum(same) / len(same), [own for _, _, own in compared]


@pytest.mark.parametrize("kind", KINDS)
def test_real_texts(program: Path, saved: Path, kind: str) -> None:
    folder = folder_of(kind, saved)
    share, _ = compare(program, folder, real_texts())
    assert share >= LEAST_REAL


@pytest.mark.parametrize("kind", KINDS)
def test_odd_texts(program: Path, saved: Path, kind: str) -> None:
    folder = folder_of(kind, saved)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [text for some in tokenizer_texts(own).values() for text in some]
    assert compare(program, folder, texts)[0] >= LEAST_ODD


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama 3", "llama, published", "xlm-roberta"])
@pytest.mark.parametrize("prefix", ["", "query: ", "D\u00e9j\u00e0 vu\nQuery:"])
def test_texts_that_are_cut(program: Path, saved: Path, kind: str, prefix: str) -> None:
    """Also those too long to be read whole, of words, of letters and of nothing."""
    lines = corpus()
    texts = [" ".join(lines[i : i + 9]) for i in range(0, 600, 9)]
    texts += [" ".join(lines[:900]), "a" * 3000, " " * 3000 + "end", "na\u00efve " * 400, "", " "]
    share, tokens = compare(program, folder_of(kind, saved), texts, 40, prefix)
    assert len(tokens) >= len(texts) - 1
    assert share == 1
    assert sum(own.truncated for own in tokens) > 50


def test_many_texts_of_many_words(program: Path, saved: Path) -> None:
    """More than go through the tokenizer in one call; ideographs, of which each is a word."""
    texts = ["".join(map(chr, range(0x4E00 + i, 0x4E00 + i + i % 300))) for i in range(600)]
    texts += [f"number {i}, and that is all" for i in range(9000)]
    for kind in ("bert", "xlm-roberta"):
        assert compare(program, folder_of(kind, saved), texts)[0] == 1


def test_the_rule_of_words(program: Path) -> None:
    """Of every code point: whether it is a blank, a word, or a part of one."""
    points = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = [
        "".join(f"a{point}b " for point in points[i : i + 5000])
        for i in range(0, len(points), 5000)
    ]
    shown = run(program, "rule", stdin="".join(json.dumps(text) + "\n" for text in texts))
    lines = shown.splitlines()
    assert len(lines) == len(texts) > 200
    for text, line in zip(texts, lines, strict=True):
        encoded = text.encode()
        got = [encoded[start:end].decode() for start, end in json.loads(line)]
        assert got == [text[start:end] for start, end in find_words(text).tolist()]
    assert run(program, "rule", stdin='""\n" \\t\\u3000"\n').split() == ["[]", "[]"]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_blanks(saved: Path, kind: str) -> None:
    """Those that the library itself finds in blanks are among them, those of words are not."""
    folder = folder_of(kind, saved)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    told = blank_tokens(tokenizer)
    unknown = tokenizer.token_to_id("<unk>")
    for blanks, before in product((" ", "  ", "\n", "\t\t", " \n "), ("a", "mud.")):
        text = f"{before}{blanks}\u00e9"
        found = tokenizer.encode(text, add_special_tokens=False)
        for number, (start, end) in zip(found.ids, found.offsets, strict=True):
            letters = text[start:end]
            if letters and number != unknown:
                assert (number in told["ids"]) >= (not letters.strip(BLANK)), (text, found.tokens)
                if not any(letter.isspace() for letter in letters) and kind == "roberta":
                    assert number not in told["ids"]
    whole = "a \u4e2d"
    mark = tokenizer.encode(whole, add_special_tokens=False)
    behind = [
        start
        for number, (start, end) in zip(mark.ids, mark.offsets, strict=True)
        if number in told["ids"] and start < end
    ]
    assert told["are_of_words"] == (behind == [2])


def test_the_benchmark(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["host_words", "--quick", "--program", str(program)]) == 0
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    shown = table.words(stored)
    assert "| bert | all of 2," in shown
    row = {"same_ids": 1000, "same_words": 999}
    stored["result"] = {"x": {"real": row, "odd": row}}
    assert "| x | 999 of 1,000 (99.90%) | 999 of" in table.words(stored)
    assert command_line.main(["host_words", "--program", "no-such-file"]) == 1
    assert "--program no-such-file: no such file. Type: make host" in capsys.readouterr().err
