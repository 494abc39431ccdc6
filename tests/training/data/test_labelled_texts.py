"""TSV files, sound and malformed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import classes_of, read_labelled


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "data.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_single_texts_keep_quotes_and_spaces(tmp_path: Path) -> None:
    data = read_labelled(written(tmp_path, 'label\ttext\na\t"quoted, not closed\nb\t  x \r\n'))
    assert data.texts == ['"quoted, not closed', "  x "]
    assert data.labels == ["a", "b"]
    assert data.form == "single"
    assert classes_of(data) == ("a", "b")


def test_cells_in_quotes(tmp_path: Path) -> None:
    """They are as pandas writes them; a row may then have several lines."""
    rows = ['"a, so",x', 'b,"She said ""yes"",\nthen left"', "c,y"]
    texts, labels = ["x", 'She said "yes",\nthen left', "y"], ["a, so", "b", "c"]
    for name, delimiter in (("data.csv", ","), ("data.tsv", "\t")):
        path = tmp_path / name
        lines = ["label,text", *rows]
        if delimiter == "\t":
            lines = ["label\ttext", '"a, so"\tx', rows[1].replace("b,", "b\t"), "c\ty"]
        path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
        data = read_labelled(path, "csv" if delimiter == "\t" else None)
        assert (data.texts, data.labels, data.lines) == (texts, labels, [2, 3, 5])
        with pytest.raises(InputError, match="line 5: label 'c' is not among"):
            data.label_ids(("a, so", "b"))
    with pytest.raises(InputError, match=r"line 2 has the cell .*--quotes csv, if"):
        read_labelled(path)


def test_pairs_and_byte_order_mark(tmp_path: Path) -> None:
    data = read_labelled(written(tmp_path, "\ufefflabel\ttext_a\ttext_b\nyes\tone\ttwo"))
    assert data.texts == [("one", "two")]
    assert data.form == "pair"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: got the header"),
        ("text\tlabel\n", "line 1: got the header"),
        ("label\ttext\na\tx\nb\n", "line 3: got 1 columns, expected 2"),
        ('label\ttext\na\t"She said ""yes"""\n', "line 2 has the cell .*--quotes csv"),
        ("label\ttext\na\tx\ty\n", "line 2: got 3 columns, expected 2"),
        ("label\ttext\n\tx\n", "line 2: the label is empty"),
        ("label\ttext\n", "no rows"),
        (b"label\ttext\na\tx\nb\t\xff\n", "line 3: not UTF-8"),
    ],
)
def test_malformed(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labelled(written(tmp_path, content))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_labelled(tmp_path / "absent.tsv")


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every row has the label 'a'"):
        classes_of(read_labelled(written(tmp_path, "label\ttext\na\tx\na\ty\n")))


def test_unknown_label_names_its_line(tmp_path: Path) -> None:
    data = read_labelled(written(tmp_path, "label\ttext\na\tx\nc\ty\n"))
    with pytest.raises(InputError, match=r"line 3: label 'c' is not among .*\(a, b\)"):
        data.label_ids(("a", "b"))
