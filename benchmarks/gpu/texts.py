"""Texts of given lengths in tokens, made of the words of the shipped sentences."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from bitheads.engine.types import Text
from bitheads.export.texts import read_texts

MEAN_TOKENS = 50
"""Tokens of a text, as in the paper (Section 6)."""

Tokenize = Callable[[Sequence[str]], Sequence[Any]]


class TextMaker:
    """Texts of any length up to the encoder's; the same seed gives the same texts."""

    def __init__(self, tokenize: Tokenize, max_length: int, seed: int = 0) -> None:
        self._tokenize = tokenize
        self._max_length = max_length
        self._random = random.Random(seed)
        words = sorted(set(re.findall(r"[a-z]{2,}", "\n".join(read_texts(None)))))
        alone = [tokens.ids.size for tokens in tokenize(words)]
        # What a second copy of a word adds is the word's own; the rest are special tokens.
        twice = [tokens.ids.size for tokens in tokenize([f"{word} {word}" for word in words])]
        self.special = 2 * alone[0] - twice[0]
        self._words: dict[int, list[str]] = defaultdict(list)
        for word, once, both in zip(words, alone, twice, strict=True):
            if once - self.special == both - once >= 1:
                self._words[both - once].append(word)

    def text(self, num_tokens: int) -> tuple[str, int]:
        """A text of so many tokens, special ones included, and how many it has.

        They differ where a tokenizer joins words in its own way, by a few.
        """
        wanted = min(num_tokens, self._max_length) - self.special
        words: list[str] = []
        while wanted > 0:
            sizes = [size for size in self._words if size <= min(wanted, 3)] or [min(self._words)]
            size = self._random.choice(sizes)
            words.append(self._random.choice(self._words[size]))
            wanted -= size
        text = " ".join(words)
        return text, int(self._tokenize([text])[0].ids.size)

    def random_texts(self, count: int) -> list[Text]:
        """Texts of random lengths: half of them are below 0.85 of MEAN_TOKENS, some far above."""
        longest = self._max_length
        lengths = [
            round(min(longest, max(self.special + 1, self._random.lognormvariate(0, 0.6) * 42)))
            for _ in range(count)
        ]
        return [self.text(length)[0] for length in lengths]
