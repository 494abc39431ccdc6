"""Texts on which tokenizers that ought to be the same come apart, by what is odd about them.

They are the same each time. The tokenizer's graph for the C++ host is compared on them: two regular
expression engines, two tables of Unicode and two ways to cut a text are what differs.
"""

from __future__ import annotations

import json
import random
from importlib.resources import files

from tokenizers import Tokenizer

MOST_TOKENS = 40
"""Added tokens whose literal text is tried; some tokenizers have thousands."""
MIXTURES = 400
"""Texts put together from pieces of the others."""

WORDS = ["The", "tide", "was", "out", "and", "every", "boat", "lay", "on", "its", "side"]
FORMS = ("{}", "tide{}out", "The tide {} was out.", "{}tide{}")
"""Where a piece stands in a text: alone, within a word, between words, and at both ends."""
AROUND_TOKEN = (
    *FORMS,
    " {}  {} ",
    "{}{}",
    "tide{} out",
    "tide {}out",
    "{}\n",
    "\t{}\t",
    "tide {}.",
)
PLANES = (
    range(0x20, 0x530),
    range(0x530, 0x3000),
    range(0x3000, 0xD800),
    range(0xE000, 0x20000),
)
"""Code points of the planes in use, but for surrogates, which no text has."""


def tokenizer_texts(tokenizer: Tokenizer) -> dict[str, list[str]]:
    """What is odd -> texts, about 2,700 in all.

    Args:
        tokenizer: whose own tokens are tried as text.
    """
    data = files("bitheads.export") / "data"
    pieces: dict[str, list[str]] = json.loads((data / "odd_pieces.json").read_text("utf-8"))
    languages = (data / "languages.txt").read_text(encoding="utf-8").splitlines()
    draw = random.Random(0)
    texts = {
        kind: [_in(form, piece) for piece in some for form in FORMS]
        for kind, some in pieces.items()
    }
    texts["its own tokens"] = [
        text for token in _own_tokens(tokenizer) for text in _around_token(token)
    ]
    texts["languages"] = [
        form for line in languages for form in (line, line.upper(), line.replace(" ", ""))
    ]
    texts["long words"] = _long_words(draw)
    texts["single characters"] = ["", *map(chr, range(1, 0x250)), *_any_characters(draw, 150, 1)]
    texts["any characters"] = _any_characters(draw, 100, 24)
    every = [*WORDS, " ", *(piece for some in pieces.values() for piece in some)]
    texts["mixtures"] = [
        "".join(draw.choices(every, k=draw.randint(2, 12))) for _ in range(MIXTURES)
    ]
    return texts


def _in(form: str, piece: str) -> str:
    return form.replace("{}", piece)


def _own_tokens(tokenizer: Tokenizer) -> list[str]:
    """Added tokens, evenly spread."""
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    step = -(-len(added) // MOST_TOKENS) or 1
    return [token.content for _, token in added[::step]]


def _around_token(token: str) -> list[str]:
    forms = [_in(form, token) for form in AROUND_TOKEN]
    return [*forms, token.upper(), token.lower(), token[:-1]]


def _long_words(draw: random.Random) -> list[str]:
    """About as long as the longest word that a model takes, and much longer."""
    small = "abcdefghijklmnopqrstuvwxyz"
    words = [
        "".join(draw.choices(alphabet, k=length))
        for alphabet in (small, small.upper() + small, "0123456789abcdef", "абвгд", "éèà")
        for length in (50, 99, 100, 101, 150, 600)
    ]
    return words + [
        piece * count for piece in ("a", "ha", "!", "中", "é") for count in (99, 101, 700)
    ]


def _any_characters(draw: random.Random, count: int, length: int) -> list[str]:
    return [
        "".join(chr(draw.choice(draw.choice(PLANES))) for _ in range(length)) for _ in range(count)
    ]
