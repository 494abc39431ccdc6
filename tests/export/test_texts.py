"""The sentences that builds are calibrated on and compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitheads.export.errors import ExportError
from bitheads.export.texts import MAX_TEXTS, read_texts


def test_lines_are_those_of_plain_text(tmp_path: Path) -> None:
    """They are read as in engine.encode: a byte order mark is no text, a line separator no end."""
    path = tmp_path / "texts.txt"
    path.write_bytes("one\u2028two\x85\r\n\nthree".encode("utf-8-sig"))
    assert read_texts(path) == ["one\u2028two\x85", "three"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    for content, message in ((b"\xff", "cannot be read"), (b"\n \n", "no text in it")):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=message):
            read_texts(path)
    path.write_text("text\n" * (MAX_TEXTS + 1))
    assert len(read_texts(path)) == MAX_TEXTS
