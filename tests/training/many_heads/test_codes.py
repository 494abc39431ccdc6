"""Codes on disk are what the engine gives, once for each text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitheads import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.types import Text
from bitheads.training.many_heads import codes as codes_module
from bitheads.training.many_heads.codes import CODES, INDEX, CodesOnDisk

LONG = "A word and then another one follows " * 60
TEXTS: list[Text] = [
    "One.",
    "Two, or three!",
    ("One.", "Two."),
    LONG,
    "",
    ("One.Two", "."),
    "Four.",
]


def new_codes(engine: Engine, folder: Path) -> CodesOnDisk:
    return CodesOnDisk(folder, engine.spec, engine.calibration, engine.manifest.encoder.max_length)


def same(found: PackedFeatures, expected: PackedFeatures) -> None:
    assert np.array_equal(found.codes, expected.codes)
    assert np.array_equal(found.offsets, expected.offsets)
    assert found.pairs is not None
    assert expected.pairs is not None
    assert np.array_equal(found.pairs, expected.pairs)
    assert (found.words is None) == (expected.words is None)
    if found.words is not None and expected.words is not None:
        for name, array in vars(expected.words).items():
            assert np.array_equal(getattr(found.words, name), array), name


def test_as_the_engine_gives_them(
    tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes_module, "PART_TEXTS", 3)
    codes = new_codes(tiny_engine, tmp_path)
    missing = codes.missing([*TEXTS, *TEXTS], words=False)
    assert missing == TEXTS
    codes.add(tiny_engine, missing, words=False, progress=False)
    assert codes.missing(TEXTS, words=False) == []
    asked = [TEXTS[i] for i in (6, 3, 2, 3, 0, 5, 4, 1)]
    same(codes.get(asked), tiny_engine.encode(asked))
    same(new_codes(tiny_engine, tmp_path).get(asked), tiny_engine.encode(asked))
    assert len(new_codes(tiny_engine, tmp_path).get([])) == 0
    with pytest.raises(AssertionError, match="Five"):
        codes.get(["Five."])


def test_words_serve_texts_that_fit(tiny_engine: Engine, tmp_path: Path) -> None:
    singles = [text for text in TEXTS if isinstance(text, str)]
    codes = new_codes(tiny_engine, tmp_path)
    codes.add(tiny_engine, singles, words=True, progress=False)
    whole = tiny_engine.encode(singles, long_texts="split", words=True)
    same(codes.get(singles, words=True), whole)
    # Of the long text there is more than a head of texts would read.
    assert codes.missing(singles, words=False) == [LONG]
    codes.add(tiny_engine, [LONG], words=False, progress=False)
    same(codes.get(singles), tiny_engine.encode(singles))
    same(codes.get(singles, words=True), whole)
    assert codes.missing(["One."], words=True) == []


def test_what_is_damaged_is_encoded_again(tiny_engine: Engine, tmp_path: Path) -> None:
    codes = new_codes(tiny_engine, tmp_path)
    codes.add(tiny_engine, ["One."], words=False, progress=False)
    codes.add(tiny_engine, ["Two."], words=False, progress=False)
    codes.add(tiny_engine, ["Three."], words=False, progress=False)
    (codes.folder / f"0000{INDEX}").write_bytes(b"half")
    (codes.folder / f"0001{CODES}").unlink()
    again = new_codes(tiny_engine, tmp_path)
    texts = ["One.", "Two.", "Three."]
    assert again.missing(texts, words=False) == ["One.", "Two."]
    again.add(tiny_engine, ["One.", "Two."], words=False, progress=False)
    same(new_codes(tiny_engine, tmp_path).get(texts), tiny_engine.encode(texts))
