"""A probe: is a word's sense in its features? (Section 6.3 of the paper)

Each sense is the mean of its word's features over the training rows. A word of the test rows has
the sense of the nearest such centroid, by cosine, among those of its lemma and part of speech. Of
lemmas that were not trained no sense is known here, so their words count as wrong, as they do for
the most frequent sense; every word is answered, so F1 is the share that is right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.errors import InputError
from bitheads.engine.texts.tables import QUOTES_OPTION, read_table

HEADER = ("label", "text", "start", "end", "lemma", "pos")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SensedWord:
    """A word in a sentence.

    Attributes:
        start, end: its characters in the text.
        word: lemma and part of speech.
    """

    sense: str
    text: str
    start: int
    end: int
    word: tuple[str, str]


def read_words(
    path: Path, quotes: str | None = None, option: str = QUOTES_OPTION
) -> list[SensedWord]:
    """Reads a UTF-8 TSV or CSV file with the columns label, text, start, end, lemma, pos.

    Args:
        quotes, option: see `training.data.labelled_texts.read_labelled`.

    Raises InputError, with the line, for anything malformed.
    """

    def check(header: tuple[str, ...]) -> None:
        if header != HEADER:
            raise InputError(
                f"{path}, line 1: got {list(header)}, expected the columns {', '.join(HEADER)}. "
                "Add them as the first line, with tabs between them, in CSV commas."
            )

    expected = f"a file with the columns {', '.join(HEADER)}"
    table = read_table(path, quotes, option, expected, check)
    words = []
    for line, cells in table.rows:
        sense, text, start, end, lemma, pos = cells
        try:
            word = SensedWord(sense, text, int(start), int(end), (lemma, pos))
            if not 0 <= word.start < word.end <= len(text):
                raise ValueError(f"no characters {start} to {end} in the text")
        except ValueError as error:
            raise InputError(
                f"{path}, line {line}: got {cells!r} ({error}), expected {', '.join(HEADER)}, "
                "where start and end are characters of the text. Correct the line."
            ) from error
        words.append(word)
    if not words:
        raise InputError(f"{path}: no rows below the header. Add examples.")
    return words


def most_frequent(train: Sequence[SensedWord]) -> dict[tuple[str, str], str]:
    """Lemma and part of speech -> the sense it has most often; of equals, the first by name."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for word in train:
        counts[word.word][word.sense] += 1
    return {
        word: min(senses, key=lambda sense: (-senses[sense], sense))
        for word, senses in counts.items()
    }


def baseline(train: Sequence[SensedWord], test: Sequence[SensedWord]) -> float:
    """The share that is right if each word has its lemma's most frequent sense."""
    senses = most_frequent(train)
    return float(np.mean([senses.get(word.word) == word.sense for word in test]))


def nearest_sense(
    train: Sequence[SensedWord],
    train_features: Floats,
    test: Sequence[SensedWord],
    test_features: Floats,
) -> float:
    """The share that is right if each word has its nearest centroid's sense.

    Args:
        train_features, test_features: float32 [words, dim].
    """
    rows: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, word in enumerate(train):
        rows[word.word][word.sense].append(row)
    centroids: dict[tuple[str, str], tuple[list[str], Floats]] = {}
    for name, senses in rows.items():
        means = np.stack([train_features[chosen].mean(axis=0) for chosen in senses.values()])
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        centroids[name] = list(senses), means / np.maximum(norms, np.finfo(np.float32).tiny)
    right = 0
    for word, features in zip(test, test_features, strict=True):
        if word.word in centroids:
            names, means = centroids[word.word]
            right += names[int((means @ features).argmax())] == word.sense
    return right / len(test)
