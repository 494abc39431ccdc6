"""Words of texts, and which tokens are theirs: what heads of the kind `token_label` read.

A word is a run of characters that are neither blank nor alone, or one character that is alone:
punctuation, symbols, and those of scripts that write without blanks between ideographs.
`host/src/words.cpp` has the same rule. A word's tokens are those that begin within it, so a token
of several words, such as "...", is the first one's, and the others, without a token, are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.ragged import offsets_of, ranges

BLANK = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, as a class of characters."""

ALONE = (
    "!-/:-@\\[-`{-~"  # of ASCII
    "\xa1-\xa9\xab-\xb4\xb6-\xb8\xbb\xbf\xd7\xf7"  # of Latin-1
    "\u2010-\u2027\u2030-\u205e\u20a0-\u20cf\u2190-\u2bff"  # punctuation, currencies, symbols
    "\u3001-\u3004\u3008-\u3020\u3030\u303d-\u303f"  # of ideographs
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"  # of full and half width
    "\U0001f000-\U0001faff"  # emoji
    # Punctuation of other scripts.
    "\u037e\u0387\u055a-\u055f\u0589-\u058a\u05be\u05c0\u05c3\u05c6\u05f3-\u05f4"
    "\u0609-\u060a\u060c-\u060d\u061b\u061d-\u061f\u066a-\u066d\u06d4\u0700-\u070d"
    "\u07f7-\u07f9\u0830-\u083e\u085e\u0964-\u0965\u0970\u09fd\u0a76\u0af0\u0c77\u0c84"
    "\u0df4\u0e4f\u0e5a-\u0e5b\u0f04-\u0f12\u0f14\u0f3a-\u0f3d\u0f85\u0fd0-\u0fd4"
    "\u0fd9-\u0fda\u104a-\u104f\u10fb\u1360-\u1368\u1400\u166e\u169b-\u169c\u16eb-\u16ed"
    "\u1735-\u1736\u17d4-\u17d6\u17d8-\u17da\u1800-\u180a\u1944-\u1945\u1a1e-\u1a1f"
    "\u1aa0-\u1aa6\u1aa8-\u1aad\u1b5a-\u1b60\u1b7d-\u1b7e\u1bfc-\u1bff\u1c3b-\u1c3f"
    "\u1c7e-\u1c7f\u1cc0-\u1cc7\u1cd3\u207d-\u207e\u208d-\u208e\u2cf9-\u2cfc\u2cfe-\u2cff"
    "\u2d70\u2e00-\u2e2e\u2e30-\u2e4f\u2e52-\u2e5d\u30a0\u30fb\ua4fe-\ua4ff\ua60d-\ua60f"
    "\ua673\ua67e\ua6f2-\ua6f7\ua874-\ua877\ua8ce-\ua8cf\ua8f8-\ua8fa\ua8fc\ua92e-\ua92f"
    "\ua95f\ua9c1-\ua9cd\ua9de-\ua9df\uaa5c-\uaa5f\uaade-\uaadf\uaaf0-\uaaf1\uabeb"
    "\ufd3e-\ufd3f\ufe10-\ufe19\ufe30-\ufe61\ufe63\ufe68\ufe6a-\ufe6b"
)
"""Characters that are a word each."""

TOKEN, NUM_TOKENS, START, END = range(4)
"""Columns of `Words.table`."""

Table = NDArray[np.int32]
Chosen = slice | NDArray[np.int64] | NDArray[np.bool_]
"""Some of the texts."""


@dataclass(frozen=True, eq=False)
class Words:
    """The words of some texts, ragged, as far as a text was read and a word has a token.

    Attributes:
        table: int32 [words, 4]: of each word the place of its first token among its text's, how
            many tokens it has, one after the other, and where in the text it starts and ends, in
            code points.
        offsets: int64 [texts + 1]; text i owns table[offsets[i]:offsets[i + 1]].
        truncated_at: int64 [texts], the code point from which on a text was not read; -1 for one
            that was read whole.
        is_single: bool [texts]; pairs have no words, nor have texts of which nobody asked for them.
    """

    table: Table
    offsets: NDArray[np.int64]
    truncated_at: NDArray[np.int64]
    is_single: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of texts."""
        return self.offsets.size - 1

    def __getitem__(self, chosen: Chosen) -> Words:
        """The words of some of the texts."""
        rows, offsets = self.rows_of(chosen)
        return Words(self.table[rows], offsets, self.truncated_at[chosen], self.is_single[chosen])

    def rows_of(self, chosen: Chosen) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of some of the texts, and those texts' offsets among them."""
        return ranges(self.offsets[:-1][chosen], np.diff(self.offsets)[chosen])

    def among(self, texts: int, rows: NDArray[np.int64]) -> Words:
        """The same texts in these rows of more texts, which have no words."""
        counts = np.zeros(texts, np.int64)
        counts[rows] = np.diff(self.offsets)
        truncated_at, is_single = np.full(texts, -1, np.int64), np.zeros(texts, np.bool_)
        truncated_at[rows], is_single[rows] = self.truncated_at, self.is_single
        return Words(self.table, offsets_of(counts), truncated_at, is_single)

    @staticmethod
    def concat(parts: Sequence[Words]) -> Words:
        """Those of all parts, in order."""
        counts = [np.diff(part.offsets) for part in parts]
        return Words(
            np.concatenate([part.table for part in parts]),
            offsets_of(np.concatenate(counts)),
            np.concatenate([part.truncated_at for part in parts]),
            np.concatenate([part.is_single for part in parts]),
        )


def find_words(text: str) -> Table:
    """Where each word of a text starts and ends, in code points, int32 [words, 2]."""
    return np.column_stack(_starts_and_ends(text)).astype(np.int32)


def _starts_and_ends(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    kinds = _kinds_of_characters()
    if text.isascii():
        of_text = np.frombuffer(text.encode().translate(kinds[:256].tobytes()), np.uint8)
    else:
        of_text = kinds[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    is_alone, is_of_run = of_text == _ALONE, of_text == _OF_RUN
    starts, ends = is_of_run.copy(), is_of_run.copy()
    starts[1:] &= ~is_of_run[:-1]
    ends[:-1] &= ~is_of_run[1:]
    return np.flatnonzero(starts | is_alone), np.flatnonzero(ends | is_alone) + 1


_OF_RUN, _BLANK, _ALONE = range(3)


@cache
def _kinds_of_characters() -> NDArray[np.uint8]:
    """One of the three for each code point, uint8 [0x110000]."""
    kinds = np.full(sys.maxunicode + 1, _OF_RUN, np.uint8)
    for kind, characters in ((_BLANK, BLANK), (_ALONE, ALONE)):
        for first, last in re.findall(r"\\?(.)(?:-(.))?", characters):
            kinds[ord(first) : ord(last or first) + 1] = kind
    return kinds


def words_of_tokens(
    texts: Sequence[str], tokens: Table, num_tokens: Sequence[int], shift: int = 0, before: int = 0
) -> list[Table]:
    """The rows of Words.table of each text.

    All texts go through NumPy together: one by one, its calls would take as long as tokenizing.

    Args:
        texts: as they were tokenized.
        tokens: int32 [tokens of all texts, 2], where in its text each starts and ends; one of no
            character of the text is empty.
        num_tokens: of each text.
        shift: characters at the beginning of each text that are not the text's own.
        before: tokens that will stand before those of each text.
    """
    pieces = [text[shift:] for text in texts]
    # Words do not go across blanks, so those of all texts are found in one.
    starts, ends = _starts_and_ends("\n".join(pieces))
    text_starts = offsets_of([len(piece) + 1 for piece in pieces])[:-1]
    token_offsets = offsets_of(num_tokens)
    moved = np.repeat(text_starts, num_tokens)
    first_chars, end_chars = (np.maximum(tokens[:, i] - shift, 0) + moved for i in range(2))
    # Of each token the first word that ends behind its start, if that starts before its end.
    owner = np.searchsorted(ends, first_chars, side="right")
    owner[np.append(starts, np.iinfo(np.int64).max)[owner] >= end_chars] = -1
    changes = np.flatnonzero(np.append(True, owner[1:] != owner[:-1])[: len(owner)])
    after = np.append(changes[1:], len(owner))
    runs = np.flatnonzero(owner[changes] >= 0)
    found = owner[changes[runs]]
    if (found[1:] <= found[:-1]).any():
        # A word may be interrupted, by a token of no character; its first run is its own.
        found, first = np.unique(found, return_index=True)
        runs = runs[first]
    starts, ends = starts[found], ends[found]
    bounds = np.append(np.searchsorted(starts, text_starts), len(found))
    counts = np.diff(bounds)
    table = np.empty((len(found), 4), np.int32)
    table[:, TOKEN] = changes[runs] - np.repeat(token_offsets[:-1] - before, counts)
    table[:, NUM_TOKENS] = after[runs] - changes[runs]
    of_text = np.repeat(text_starts, counts)
    table[:, START], table[:, END] = starts - of_text, ends - of_text
    return [table[i:j] for i, j in pairwise(bounds.tolist())]
