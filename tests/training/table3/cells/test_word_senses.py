"""The word-sense probe, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitheads.engine.errors import InputError
from bitheads.training.table3.cells.word_senses import (
    SensedWord,
    baseline,
    nearest_sense,
    read_words,
)

HEADER = "label\ttext\tstart\tend\tlemma\tpos"


def word(sense: str, lemma: str = "bank") -> SensedWord:
    return SensedWord(sense, "a bank", 2, 6, (lemma, "NOUN"))


TRAIN = [word("river"), word("money"), word("money"), word("left", "bear")]
FEATURES = np.array([[1, 0], [0, 1], [0.2, 3], [1, 1]], np.float32)


def test_nearest_by_angle() -> None:
    test = [word("river"), word("money"), word("river"), word("left", "bear"), word("x", "new")]
    features = np.array([[9, 1], [1, 9], [0, 1], [-1, -1], [1, 0]], np.float32)
    # Right, right, wrong, the only sense there is, and a lemma that was not trained.
    assert nearest_sense(TRAIN, FEATURES, test, features) == 3 / 5
    assert baseline(TRAIN, test) == 2 / 5


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"{HEADER}\nriver\ta bank\t2\t6\tbank\tNOUN\r\n", encoding="utf-8")
    assert read_words(path) == [word("river")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\ttext\n", r"line 1: got \['label', 'text'\]"),
        (f"{HEADER}\n", "no rows below the header"),
        (f"{HEADER}\nriver\ta bank\t2\t6\tbank", "line 2: got"),
        (f"{HEADER}\nriver\ta bank\t2\t7\tbank\tNOUN", "no characters 2 to 7 in the text"),
        (f"{HEADER}\nriver\ta bank\tx\t6\tbank\tNOUN", "line 2: got"),
        (f"{HEADER}\n\nriver\ta bank\t2\t6\tbank\tNOUN", "line 2: got"),
    ],
)
def test_unsound_rows(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_words(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_words(tmp_path / "train.tsv")
