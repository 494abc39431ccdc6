"""The background texts that are shipped: what is in them, and what must not be."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
DATA = ROOT / "training" / "data"
MAIL_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}")
TELEPHONE_NUMBER = re.compile(
    r"\+\d[\d ()-]{7,}\d|\(\d{3}\) ?\d{3}-\d{4}|\b\d{3}[-. ]\d{3}[-. ]\d{4}\b"
)
LONGEST_WORDS, LONGEST_CHARACTERS = 124, 1000


@pytest.fixture(scope="module")
def texts() -> list[str]:
    content = (DATA / "background.txt").read_bytes().decode("utf-8")
    assert content.endswith("\n")
    return content[:-1].split("\n")


@pytest.fixture(scope="module")
def told() -> str:
    return (DATA / "background.md").read_text(encoding="utf-8")


def words_of(text: str) -> str:
    """Letters and digits in one case, by which two texts are the same; a text of marks alone."""
    return "".join(c for c in text.casefold() if c.isalnum()) or text


def test_every_line_is_another_text(texts: list[str]) -> None:
    assert len({words_of(text) for text in texts}) == len(texts)
    assert all(text and text == " ".join(text.split()) for text in texts)


def test_lines_are_plain_text(texts: list[str]) -> None:
    for text in texts:
        assert unicodedata.is_normalized("NFC", text), text
        # Joiners and non-joiners are part of emoji and of some scripts.
        odd = [c for c in text if unicodedata.category(c)[0] == "C" and c not in "\u200c\u200d"]
        assert not odd, (text, odd)
        assert "\ufffd" not in text, text


def test_lengths(texts: list[str], told: str) -> None:
    lengths = [len(text.split()) for text in texts]
    assert (min(lengths), max(lengths)) == (1, LONGEST_WORDS)
    assert f"one to {LONGEST_WORDS} words" in told
    assert sum(5 <= length <= 40 for length in lengths) > len(texts) / 2
    assert max(map(len, texts)) <= LONGEST_CHARACTERS
    assert (DATA / "background.txt").stat().st_size <= 800_000


def test_counts_are_those_of_its_page(texts: list[str], told: str) -> None:
    rows = [int(row) for row in re.findall(r"^\|.*\| *(\d+) \|$", told, re.MULTILINE)]
    assert sum(rows) == len(texts)
    assert f"{len(texts):,} short texts" in told
    written = int(re.findall(r"^\| Written for this file.*\| *(\d+) \|$", told, re.MULTILINE)[0])
    kinds = told.partition("has: ")[2].partition("What they tell")[0]
    # "some 70 other languages" counts languages.
    counts = re.findall(r"(?<!some )\b\d+\b", kinds)
    assert sum(map(int, counts)) == written


def test_texts_of_other_files(texts: list[str], told: str) -> None:
    demo = (ROOT / "engine/data/demo.tsv").read_text(encoding="utf-8").splitlines()[1:]
    keys = {words_of(text) for text in texts}
    assert not keys & {words_of(text) for line in demo for text in line.split("\t") if text}
    sentences = (ROOT / "export/data/sentences.txt").read_text(encoding="utf-8").splitlines()
    shared = set(sentences) & set(texts)
    (row,) = re.findall(r"^\| `export/data/sentences.txt`.*\| *(\d+) \|$", told, re.MULTILINE)
    assert len(shared) == int(row)


def test_nobody_can_be_reached_by_them(texts: list[str]) -> None:
    for text in texts:
        assert not MAIL_ADDRESS.search(text), text
        assert not TELEPHONE_NUMBER.search(text), text
        hosts = re.findall(r"(?:https?|ftp)://([\w.-]+)", text)
        known = r"(?:.*\.)?example\.(?:com|org|net)|localhost"
        assert all(re.fullmatch(known, host) for host in hosts), text


def test_they_are_of_many_kinds(texts: list[str]) -> None:
    """Scripts, questions, capitals, code and single words are each a share worth training on."""
    scripts = {unicodedata.name(c, "?").split()[0] for t in texts for c in t if c.isalpha()}
    wanted = {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL"}
    assert wanted | {"THAI", "CJK", "HIRAGANA", "HANGUL", "GEORGIAN", "ARMENIAN"} <= scripts
    assert sum(text.endswith("?") for text in texts) >= 200
    assert sum(len(text.split()) == 1 for text in texts) >= 100
    assert sum(bool(re.search(r"[;{}=]|\(\)", text)) for text in texts) >= 500
    assert sum(text.isupper() and len(text.split()) > 2 for text in texts) >= 20
