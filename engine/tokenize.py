"""Texts to token ids, in bounded time and memory whatever a text holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from engine.errors import BundleError, InputError
from engine.types import Text

CHARS_PER_TOKEN = 16
"""A text this many times longer than the limit in tokens is first cut, see `_tokenize_long`."""

MAX_CHARS = 1 << 18
"""No more of a text is ever read: what has not filled the limit by then is one endless word, or
blank, and would cost half a second per megabyte to find that out."""

CUT_MARGIN = 128
"""Characters before a cut whose tokens are not relied on. BERT's tokenizer makes a word of more
than 100 characters one unknown token, so half of such a word has other tokens than the whole."""

CHUNK = 1024
"""Texts tokenized at once: the tokenizer's own objects are large and must not pile up."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """One tokenized text.

    Attributes:
        ids: int32 [tokens].
        num_first: tokens with type id 0; the rest, the second text of a pair, have type id 1.
        truncated: whether tokens were dropped to keep to the maximum length.
    """

    ids: NDArray[np.int32]
    num_first: int
    truncated: bool


class TextTokenizer:
    """The encoder's own tokenizer, cut to at most `max_length` tokens a text.

    Pairs are joined as the tokenizer's template says and cut longest text first.
    """

    def __init__(self, path: Path, max_length: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(
                f"tokenizer {path}: cannot be read ({error}). Export the bundle again."
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")
        self._max_length = max_length
        self._max_chars = CHARS_PER_TOKEN * max_length

    def __call__(self, texts: Sequence[Text]) -> list[Tokens]:
        """Token ids of every text, in order.

        Raises InputError for items that are neither a string nor a pair of strings, and for
        strings that are not valid Unicode (lone surrogates).
        """
        if isinstance(texts, str):
            raise InputError(
                f"texts: got one string ({texts[:40]!r}), expected a sequence of texts. "
                "Pass [text]."
            )
        pairs = [_check(item, index) for index, item in enumerate(texts)]
        result: list[Tokens] = []
        for start in range(0, len(pairs), CHUNK):
            result.extend(self._tokenize_chunk(pairs[start : start + CHUNK]))
        return result

    def _tokenize_chunk(self, pairs: list[tuple[str, ...]]) -> list[Tokens]:
        short = [all(len(text) <= self._max_chars for text in pair) for pair in pairs]
        inputs = [_as_input(pair) for pair, ok in zip(pairs, short, strict=True) if ok]
        encoded = iter(self._tokenizer.encode_batch_fast(inputs))
        return [
            _tokens(next(encoded)) if ok else self._tokenize_long(pair)
            for pair, ok in zip(pairs, short, strict=True)
        ]

    def _tokenize_long(self, pair: tuple[str, ...]) -> Tokens:
        """Tokenizes only as much of very long texts as can matter.

        A prefix that alone fills the maximum length gives the same first tokens as the whole
        text, as tokenizers work word by word; a prefix that does not is made longer, up to
        MAX_CHARS. Of a pair of two such texts with an odd number of tokens to share, the odd one
        goes to the prefix of more tokens, which need not be the text of more tokens.
        """
        max_chars = self._max_chars
        while True:
            cut = tuple(_cut_at_space(text, max_chars) for text in pair)
            if max_chars >= MAX_CHARS or all(
                part == text or self._fills(part) for part, text in zip(cut, pair, strict=True)
            ):
                tokens = _tokens(self._tokenizer.encode_batch_fast([_as_input(cut)])[0])
                return Tokens(tokens.ids, tokens.num_first, tokens.truncated or cut != pair)
            max_chars = min(4 * max_chars, MAX_CHARS)

    def _fills(self, prefix: str) -> bool:
        """Whether the maximum length is reached well before the end, where the cut may matter."""
        encoded = self._tokenizer.encode(prefix)
        last_char = max((end for _, end in encoded.offsets), default=0)
        return bool(encoded.overflowing) and last_char <= len(prefix) - CUT_MARGIN


def _check(item: object, index: int) -> tuple[str, ...]:
    pair = (item,) if isinstance(item, str) else item
    if (
        not isinstance(pair, tuple | list)
        or not 1 <= len(pair) <= 2
        or not all(isinstance(text, str) for text in pair)
    ):
        raise InputError(
            f"text {index}: got {_describe(item)}, expected a str or a pair of str. "
            "Convert it, for example with str(...), or leave it out."
        )
    for text in pair:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"text {index}: got a lone surrogate {text[error.start]!r} at character "
                    f"{error.start}, expected valid Unicode. Decode the source with "
                    "errors='replace', or pass text.encode('utf-8', 'replace').decode()."
                ) from error
    return tuple(pair)


def _describe(item: object) -> str:
    if isinstance(item, tuple | list):
        return f"{type(item).__name__} of ({', '.join(type(part).__name__ for part in item)})"
    return f"{type(item).__name__} {str(item)[:40]!r}"


def _as_input(pair: tuple[str, ...]) -> str | tuple[str, str]:
    return pair[0] if len(pair) == 1 else (pair[0], pair[1])


def _tokens(encoding: Encoding) -> Tokens:
    ids = np.asarray(encoding.ids, dtype=np.int32)
    num_first = ids.size - sum(encoding.type_ids)
    return Tokens(ids, num_first, bool(encoding.overflowing))


def _cut_at_space(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    space = max(text.rfind(blank, 0, max_chars) for blank in " \n\t")
    return text[: space if space > max_chars // 2 else max_chars]
