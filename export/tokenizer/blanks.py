"""A tokenizer's tokens of blanks: what the C++ host wants to know to find the tokens of words.

Its graph gives ids and no places. Which token of `a  b` is of a blank alone shows in its letters,
and whether a mark of a word that stands by itself, as in `▁`, `中`, is at the place of the blank or
of the word differs from tokenizer to tokenizer: the library's own places show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Any

from tokenizers import Tokenizer

from bitheads.engine.features.words import BLANK

WORD_MARK = "\u2581"
"""What sentencepiece writes for a blank."""
ODD_LETTERS = "\u4e2d\u05d0\u0436\u0e01\u0663\u03bb\ue000\U0001f600\U00010000%^~|"
"""Of which some begin no token with a mark, in any vocabulary."""

_BLANK = re.compile(f"[{BLANK}]+")
_BYTE = re.compile("<0x([0-9A-F]{2})>")


def blank_tokens(tokenizer: Tokenizer) -> dict[str, Any]:
    """ids: of tokens of nothing but blanks. are_of_words: whether one between a blank and a word
    has the word's place."""
    ids = sorted(
        number
        for token, number in tokenizer.get_vocab(with_added_tokens=True).items()
        if _BLANK.fullmatch(_letters(token))
    )
    return {"ids": ids, "are_of_words": _are_of_words(tokenizer, {*ids})}


def _letters(token: str) -> str:
    """As they stand in a text. Byte-level tokens have a letter for each byte of UTF-8."""
    if byte := _BYTE.fullmatch(token):
        code = int(byte[1], 16)
        return chr(code) if code < 0x80 else token
    if all(letter in _BYTE_OF for letter in token):
        return bytes(_BYTE_OF[letter] for letter in token).decode("utf-8", "replace")
    return token.replace(WORD_MARK, " ")


def _byte_letters() -> Iterator[tuple[str, int]]:
    """GPT-2's letters for bytes."""
    hidden = count(0x100)
    for byte in range(256):
        is_shown = 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD)
        yield chr(byte if is_shown else next(hidden)), byte


_BYTE_OF = dict(_byte_letters())


def _are_of_words(tokenizer: Tokenizer, blanks: set[int]) -> bool:
    for letter in ODD_LETTERS:
        found = tokenizer.encode(f"a {letter}", add_special_tokens=False)
        for number, (start, end) in zip(found.ids, found.offsets, strict=True):
            if number in blanks and 2 <= start < end:
                return True
    return False
