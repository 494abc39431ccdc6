"""Texts are of mixed lengths, from all folders, the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.inputs import texts


def test_texts_are_mixed_and_come_again() -> None:
    found = texts.mixed(None, 200)
    assert found == texts.mixed(None, 200)
    lengths = sorted(len(text.split()) for text in found)
    assert lengths[0] * 5 < lengths[-1]


def test_texts_are_drawn_from_all_folders(tmp_path: Path) -> None:
    for name, header in (("a", "label\ttext"), ("b", "label\ttext_a\ttext_b")):
        (tmp_path / name).mkdir()
        second = "" if name == "a" else "\tz"
        rows = "".join(f"x\t{name} {i}{second}\n" for i in range(9))
        (tmp_path / name / "test.tsv").write_text(f"{header}\n{rows}", encoding="utf-8")
    found = texts.mixed(tmp_path, 6)
    assert len({*found}) == 6
    assert {text[0] for text in found} == {"a", "b"}
    assert len({*texts.mixed(tmp_path, 40)}) == 40
    assert len(texts.drawn(tmp_path, 6)) == 6
    with pytest.raises(Exception, match=r"no \*/test.tsv in it"):
        texts.drawn(tmp_path / "a", 6)


def test_columns_without_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "test.tsv").write_text("label\twords\nx\ty\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"a/test.tsv has the columns \['label', 'words'\]"):
        texts.drawn(tmp_path, 6)
