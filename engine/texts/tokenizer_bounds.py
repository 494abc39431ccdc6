"""What a tokenizer.json may make of a text, bounded before any text, and before it is loaded.

Twenty replacements of x by xx make a million of it; a template may name a list of a million tokens
a million times. Loading such a file already runs it, on its own added tokens.

Not bounded is the time of a pattern that tries many ways to match: the library gives up after ten
million of them, 0.1 s, but may begin anew at every character.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_GROWTH = 64
"""Characters that one becomes at most, but for Unicode's own expansions, which count once. The
tokenizers of known encoders have at most 10."""

MAX_ADDED_CHARS = 1024
"""Characters that a text becomes longer by, whatever it is, at most."""

MAX_AFFIX = 256
"""Characters of a model's prefixes and suffixes, which it puts to every piece of a word."""

MAX_WORD = 1000
"""Characters of a word that is looked up piece by piece, in time that grows with their square."""

UNICODE_GROWTH = 18
"""Characters that NFKD makes of one, at most; Unicode promises never more."""

MAX_DECODED_CHARS = 1 << 22
"""Characters of the tokens that are decoded together, at most; of known encoders, whose longest
tokens have 128, more than a request has."""

DECODERS = {
    "BPEDecoder",
    "ByteFallback",
    "ByteLevel",
    "CTC",
    "Fuse",
    "Metaspace",
    "Strip",
    "WordPiece",
}
"""Decoders that put a blank to a character at most."""

KEEP = {
    "BertPreTokenizer",
    "CharDelimiterSplit",
    "Digits",
    "FixedLength",
    "Punctuation",
    "Split",
    "Strip",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
}
"""Parts that split or drop, and change no character."""

CHANGE = {
    "BertNormalizer": 3,  # a Chinese character is put between spaces
    "ByteLevel": 5,  # a character for each byte, and a space before
    "Lowercase": 1,
    "Metaspace": 2,
    "NFC": 1,
    "NFD": 1,
    "NFKC": 1,
    "NFKD": 1,
    "Nmt": 1,
    "StripAccents": 1,
}
"""Parts that make other characters -> how many of one, but for Unicode's own expansions."""


def check_tokenizer(path: Path, max_length: int) -> None:
    """Raises ValueError for a file whose texts are not bounded by themselves, and OSError.

    Args:
        max_length: most tokens of a text.
    """
    content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles)
    try:
        parts = [
            *_flat(content.get("normalizer"), "normalizers"),
            *_flat(content.get("pre_tokenizer"), "pretokenizers"),
        ]
        _check_growth(parts)
        for part in _flat(content.get("post_processor"), "processors"):
            if part["type"] == "TemplateProcessing":
                _check_template(part, max_length)
        _check_model(content["model"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a part of it is not as it must be: {error!r:.200}") from error


def check_decoder(decoder: Mapping[str, Any] | None) -> None:
    """Raises ValueError for one that may make more of tokens than DECODERS do.

    Args:
        decoder: as in a tokenizer.json, of a tokenizer that is loaded.
    """
    for part in _flat(decoder, "decoders"):
        kind = part["type"]
        if kind == "Replace":
            word, content = part["pattern"].get("String", ""), part["content"]
            if len(content) > len(word):
                raise ValueError(f"replaces {word!r:.60} by more, {content!r:.60}")
        elif kind not in DECODERS:
            raise ValueError(f"has a part of the type {kind!r:.60}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two entries of one name, who knows which the library reads?"""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two entries of one object have the same name")
    return found


def _flat(part: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """A part, or the parts of a sequence of them, in order; nested as deep as JSON may be."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for one in part[name]:
            yield from _flat(one, name)
    else:
        yield part


def _check_growth(parts: list[Mapping[str, Any]]) -> None:
    """Finds out, from the last part to the first, what a character that reaches a part ends as."""
    ends = _Ends()
    charsmaps = 0
    for part in reversed(parts):
        kind = part["type"]
        if kind == "Replace":
            pattern, end = part["pattern"], ends.of_text(part["content"])
            if word := pattern.get("String"):
                ends.replace(word[0], end)
            else:  # a pattern may match nothing, at every character and at the end
                ends.insert(end)
        elif kind == "Prepend":
            ends.added += ends.of_text(part["prepend"])
        elif kind == "Precompiled":
            longest = _longest_of_charsmap(part["precompiled_charsmap"])
            if longest > UNICODE_GROWTH:
                raise ValueError(
                    f"its charsmap makes {longest} characters of one, expected at most "
                    f"{UNICODE_GROWTH}"
                )
            ends.mix(longest if charsmaps else 1)
            charsmaps += 1
        elif kind not in KEEP:
            ends.mix(CHANGE.get(kind, UNICODE_GROWTH))
        if ends.most() > MAX_GROWTH:
            raise ValueError(
                f"its normalizers and pre-tokenizers may make more than {MAX_GROWTH} characters of "
                "one"
            )
        if ends.added > MAX_ADDED_CHARS:
            raise ValueError(
                f"its normalizers may make a text longer by more than {MAX_ADDED_CHARS} characters"
            )


class _Ends:
    """How many characters one becomes, by what it is.

    Attributes:
        added: how many characters a text becomes longer by.
    """

    def __init__(self) -> None:
        self.added = 0
        self._of: dict[str, int] = {}
        self._of_others = 1

    def of_text(self, text: str) -> int:
        """Unicode's expansions count for what is put in: it may be put in again and again."""
        forms = (
            text,
            unicodedata.normalize("NFKD", text),
            unicodedata.normalize("NFKD", text.lower()),
        )
        return max(sum(self._of.get(char, self._of_others) for char in form) for form in forms)

    def most(self) -> int:
        return max([self._of_others, *self._of.values()])

    def replace(self, char: str, end: int) -> None:
        """A word that begins with the character ends as that: the rest of the word is gone."""
        self._of[char] = max(end, self._of.get(char, self._of_others))

    def insert(self, end: int) -> None:
        self._of = {char: one + end for char, one in self._of.items()}
        self._of_others += end
        self.added += end

    def mix(self, factor: int) -> None:
        """Any character may have become any other, and so many of them."""
        self._of, self._of_others = {}, factor * self.most()


def _longest_of_charsmap(text: str) -> int:
    """Characters of the longest replacement in a map of SentencePiece's.

    After the size of a trie, int32, and the trie come the replacements, with a NUL after each.
    """
    data = base64.b64decode(text)
    replacements = data[4 + int.from_bytes(data[:4], "little") :]
    return max(len(one.decode("utf-8", "replace")) for one in replacements.split(b"\0"))


def _check_template(template: Mapping[str, Any], max_length: int) -> None:
    """Each text once, in order, and the tokenizer's own tokens leave room for one of it."""
    own = {name: len(token["ids"]) for name, token in template["special_tokens"].items()}
    for form, texts in (("single", ["A"]), ("pair", ["A", "B"])):
        pieces = template[form]
        got = [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece]
        if got != texts:
            raise ValueError(
                f"its template of a {form} has the texts {got!r:.100}, expected {texts}"
            )
        count = sum(own[piece["SpecialToken"]["id"]] for piece in pieces if "Sequence" not in piece)
        if count + len(texts) > max_length:
            raise ValueError(
                f"its template of a {form} has {count} tokens of its own, which leaves no room for "
                f"texts: the maximum length is {max_length}"
            )


def _check_model(model: Mapping[str, Any]) -> None:
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token"):
        if len(model.get(name) or "") > MAX_AFFIX:
            raise ValueError(f"its {name} has more than {MAX_AFFIX} characters")
    if (model.get("max_input_chars_per_word") or 0) > MAX_WORD:
        raise ValueError(f"its words may have more than {MAX_WORD} characters")
