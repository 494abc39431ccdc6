"""What a call is made of: texts, the batches they become, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import add
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Text = str | tuple[str, str]
"""What a task reads: one text, or a pair joined the way the encoder's tokenizer joins pairs."""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A padded batch for one encoder call; padding is on the right.

    Attributes:
        input_ids, attention_mask: int64 [rows, seq].
        token_type_ids: int64 [rows, seq]; sessions ignore it if the graph has no such input.
        lengths: int64 [rows], real tokens of each row.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    lengths: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PlacedBatch:
    """A padded batch, and where its rows' results belong.

    Attributes:
        tokens: the batch.
        texts: int64 [rows], index of each row's text, or window on one, in the input.
        token_offsets: int64 [rows], index in the codes of each row's first token.
        codes: uint8 [tokens, code_bytes], to which they are packed; None where codes are not asked
            for.
        embeddings: float32 [texts, dim], to which each row's goes, at its text; None where they are
            not asked for.
    """

    tokens: TokenBatch
    texts: NDArray[np.int64]
    token_offsets: NDArray[np.int64]
    codes: NDArray[np.uint8] | None = None
    embeddings: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Stats:
    """What a call did and what it cost; seconds are wall time of each stage.

    Where batches ran at the same time, each counts for its share of the machine. Large calls are
    tokenized while they are encoded: then the stages take less time than their sum.

    Attributes:
        num_truncated: texts of which tokens were dropped.
        num_windows: rows of the encoder calls: as many as there are different texts, and more where
            texts were split. Tokens, batches and padding are of these.
    """

    num_texts: int = 0
    num_tokens: int = 0
    num_truncated: int = 0
    num_windows: int = 0
    num_batches: int = 0
    num_padding: int = 0
    tokenize_s: float = 0.0
    encode_s: float = 0.0
    pack_s: float = 0.0
    heads_s: float = 0.0

    def __add__(self, other: Stats) -> Stats:
        return Stats(*map(add, vars(self).values(), vars(other).values()))


BatchRunner: TypeAlias = Callable[[PlacedBatch], Stats]
"""Encodes one batch, and puts what is asked for of its rows in its place."""
