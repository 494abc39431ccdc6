"""Where in a text each of its tokens lies, of texts that need no library to say so.

The tokenizer library tells it by a table of each text's bytes, which takes a fifth of the time of
tokenizing. Where the characters that tokens stand for, one token's after the other's, are those of
the text, but for blanks and case, there the tokens lie, and the library need not be asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitheads.engine.features.ragged import offsets_of, ranges
from bitheads.engine.features.words import Table

_BLANK = "▁"
_MARKS = re.compile(rf"^##|[{_BLANK}ĠĊĉč\s]")
"""What a token has beside its characters: that it goes on with a word, and blanks before it."""

_NONE = b"\xff"
"""Of a token that stands for anything else, which no text in ASCII has."""


class TokenCharacters:
    """The characters that each token of a vocabulary stands for, in ASCII and lower case."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenCharacters | None:
        """Those of a tokenizer; None where a blank by itself is a token of SentencePiece.

        Many texts then have that token, and the library places it with the word behind it, or not.
        """
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        return None if _BLANK in vocabulary else cls(vocabulary)

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        """vocabulary: ids by token."""
        characters = [_NONE] * (1 + max(vocabulary.values(), default=0))
        for token, number in vocabulary.items():
            plain = _MARKS.sub("", token)
            characters[number] = plain.lower().encode() if plain.isascii() else _NONE
        self._characters = np.frombuffer(b"".join(characters), np.uint8)
        self._lengths = np.array([len(one) for one in characters], np.int64)
        self._starts = offsets_of(self._lengths)[:-1]

    def places(
        self, texts: Sequence[str], ids: Sequence[NDArray[np.int32]]
    ) -> tuple[Table, NDArray[np.bool_]]:
        """Where in its text each token starts and ends, int32 [tokens of all texts, 2], and of
        which texts that holds, bool [texts].

        A token of no character but blanks ends where it starts, or before.

        Args:
            texts: in ASCII.
            ids: of each text's tokens.
        """
        text = np.frombuffer("\n".join(texts).encode("ascii").lower(), np.uint8)
        text_starts = offsets_of(np.array([len(one) + 1 for one in texts], np.int64))
        shown = np.flatnonzero((text > ord(" ")) & (text != 0x7F))
        tokens = np.concatenate([np.empty(0, np.int32), *ids])
        num_tokens = np.array([one.size for one in ids], np.int64)
        lengths = self._lengths[tokens]
        of_tokens = np.diff(offsets_of(lengths)[offsets_of(num_tokens)])
        holds = of_tokens == np.diff(np.searchsorted(shown, text_starts))
        if not holds.all():  # as many characters here as there: one text after the other
            kept = np.flatnonzero(holds).tolist()
            places = np.zeros((len(tokens), 2), np.int32)
            of_kept, kept_holds = self.places([texts[i] for i in kept], [ids[i] for i in kept])
            places[np.repeat(holds, num_tokens)] = of_kept
            holds[kept] = kept_holds
            return places, holds
        rows, bounds = ranges(self._starts[tokens], lengths)
        differ = shown[self._characters[rows] != text[shown]]
        holds[np.searchsorted(text_starts, differ, side="right") - 1] = False
        around = np.concatenate([[-1], shown, [len(text)]])
        own = np.repeat(text_starts[:-1], num_tokens)
        starts, ends = around[bounds[:-1] + 1] - own, around[bounds[1:]] + 1 - own
        return np.column_stack([starts, ends]).astype(np.int32), holds
