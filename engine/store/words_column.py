"""The columns of words: which tokens and characters of a text each of its words has.

A word is told by its distance from the word before it: nearly always no token, no character or one
blank between them, few tokens and few characters. Such columns take less than a byte per token,
places within the text 2 to 3.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitheads.engine.features.ragged import offsets_of
from bitheads.engine.features.words import END, NUM_TOKENS, START, TOKEN, Words

WORDS, TRUNCATED_AT = "words", "truncated_at"

PARTS = ("skipped_tokens", "num_tokens", "skipped_chars", "num_chars")
"""Of a word: tokens after the last one of the word before, or at the text's beginning; its own;
code points, likewise."""

_TYPE = pa.struct([pa.field(part, pa.int32(), nullable=False) for part in PARTS])

FIELDS = (
    pa.field(WORDS, pa.list_(pa.field("element", _TYPE, nullable=False)), nullable=False),
    pa.field(TRUNCATED_AT, pa.int32()),  # null: the text was read whole
)


def make_columns(words: Words | None) -> dict[str, pa.Array]:
    """Both columns, by name; None of no texts."""
    if words is None:
        return {field.name: pa.array([], field.type) for field in FIELDS}
    table, offsets = words.table.astype(np.int64), words.offsets
    before = _ends_before(table, offsets)
    parts = (
        table[:, TOKEN] - before[0],
        table[:, NUM_TOKENS],
        table[:, START] - before[1],
        table[:, END] - table[:, START],
    )
    rows = pa.StructArray.from_arrays(
        [pa.array(part.astype(np.int32)) for part in parts], fields=[*_TYPE]
    )
    column = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), rows, FIELDS[0].type)
    at = words.truncated_at
    return {WORDS: column, TRUNCATED_AT: pa.array(at.astype(np.int32), mask=at < 0)}


def _ends_before(
    table: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the word before each ends within its text, in tokens and in characters."""
    is_first = np.zeros(len(table), np.bool_)
    is_first[offsets[:-1][np.diff(offsets) > 0]] = True
    ends = (table[:, TOKEN] + table[:, NUM_TOKENS], table[:, END])
    tokens, chars = (np.where(is_first, 0, np.append(0, end[:-1])[: len(end)]) for end in ends)
    return tokens, chars


def check(table: pa.Table, num_tokens: NDArray[np.int32], is_pair: NDArray[np.bool_]) -> None:
    """Raises ValueError that says of a word what no writer writes."""
    rows, offsets = _rows_of(table)
    room = np.repeat(num_tokens, np.diff(offsets))
    ends = rows[:, TOKEN] + rows[:, NUM_TOKENS]
    _, chars_before = _ends_before(rows, offsets)
    wrong = {
        "has no token": rows[:, NUM_TOKENS] < 1,
        "has a token that is not its text's": (rows[:, TOKEN] < 0) | (ends > room),
        "has no character": rows[:, END] <= rows[:, START],
        "begins before the one before it ends": rows[:, START] < chars_before,
        "ends past all texts": rows[:, END] > np.iinfo(np.int32).max,
        "is of a pair": np.repeat(is_pair, np.diff(offsets)),
    }
    for what, is_wrong in wrong.items():
        if is_wrong.any():
            raise ValueError(what)
    if (table[TRUNCATED_AT].fill_null(0).to_numpy() < 0).any():
        raise ValueError("is before its text")


def words_of_columns(table: pa.Table, is_single: NDArray[np.bool_]) -> Words:
    """The words of a table's rows.

    Args:
        is_single: see Words.
    """
    rows, offsets = _rows_of(table)
    truncated_at = table[TRUNCATED_AT].fill_null(-1).to_numpy().astype(np.int64)
    return Words(rows.astype(np.int32), offsets, truncated_at, is_single)


def _rows_of(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Words.table, as int64, and Words.offsets."""
    column = table[WORDS].combine_chunks()
    counts = np.diff(column.offsets.to_numpy().astype(np.int64))
    offsets = offsets_of(counts)
    words = column.flatten()  # those of these rows alone, if the column is a slice
    skipped_tokens, num_tokens, skipped_chars, num_chars = (
        words.field(part).to_numpy().astype(np.int64) for part in PARTS
    )
    tokens = _sums_within(skipped_tokens + num_tokens, offsets)
    ends = _sums_within(skipped_chars + num_chars, offsets)
    return np.column_stack([tokens - num_tokens, num_tokens, ends - num_chars, ends]), offsets


def _sums_within(steps: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of all steps of each word's text up to it."""
    sums = np.append(0, np.cumsum(steps))
    result: NDArray[np.int64] = sums[1:] - np.repeat(sums[offsets[:-1]], np.diff(offsets))
    return result
