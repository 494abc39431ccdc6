"""Labelled texts of every kind from every kind of file, sound and malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import (
    LabelledTexts,
    classes_of,
    labelled_from,
    range_of,
    read_labelled,
)


def written(folder: Path, content: str | bytes, name: str = "data.tsv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_of(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_single_texts_keep_quotes_and_spaces(tmp_path: Path) -> None:
    data = read_labelled(written(tmp_path, 'label\ttext\na\t"quoted, not closed\nb\t  x \r\n'))
    assert data.texts == ['"quoted, not closed', "  x "]
    assert data.labels == ["a", "b"]
    assert (data.form, data.kind, data.columns) == ("single", "single_label", ("text", "label"))
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
    line = '\ufeff{"text_b": "two", "label": "yes", "text_a": "one"}\r\n\r\n'
    assert read_labelled(written(tmp_path, line, "data.jsonl")).texts == [("one", "two")]


def test_columns_in_any_order_beside_others(tmp_path: Path) -> None:
    data = read_labelled(written(tmp_path, "id\ttext\tsource\tlabel\n7\tx\tweb\ta\n8\ty\tweb\tb\n"))
    assert (data.texts, data.labels) == (["x", "y"], ["a", "b"])
    assert (data.columns, data.other_columns) == (("text", "label"), ("id", "source"))
    pair = "label\ttext_a\ttext\ttext_b\na\tx\ty\tz\n"
    assert read_labelled(written(tmp_path, pair)).texts == ["y"], "as for bitheads encode"
    row = {"meta": {"deep": [1]}, "label": "a", "text": "x"}
    data = read_labelled(written(tmp_path, lines_of(row, {**row, "more": 1}), "data.ndjson"))
    assert (data.texts, data.other_columns) == (["x", "x"], ("meta",))


ROWS = {
    "single_label": [
        {"text": "one", "label": "b"},
        {"text": "two | \u2603", "label": "a|c"},
        {"text": "three", "label": "b"},
    ],
    "multi_label": [
        {"text": "one", "labels": ["joy", "anger"]},
        {"text": "two", "labels": []},
        {"text": "three", "labels": ["joy"]},
    ],
    "regression": [
        {"text_a": "one", "text_b": "uno", "score": 4.75},
        {"text_a": "two", "text_b": "tres", "score": -1.5},
        {"text_a": "three", "text_b": "", "score": 300.0},
    ],
    "ordinal": [
        {"text": "bad", "label": 2},
        {"text": "worst", "label": 1},
        {"text": "good", "label": 10},
    ],
}


def in_every_format(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """As programs write them; TSV and CSV by hand, for sets are joined there."""
    names = list(rows[0])
    cells = [[f"{'|'.join(v) if isinstance(v, list) else v}" for v in row.values()] for row in rows]
    paths = [folder / f"data.{suffix}" for suffix in ("tsv", "csv", "jsonl", "json", "parquet")]
    for path, delimiter in zip(paths[:2], "\t,", strict=True):
        path.write_text("\n".join(delimiter.join(row) for row in [names, *cells]), "utf-8")
    for path in paths[2:4]:
        path.write_text(lines_of(*rows), "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), paths[4])
    return paths


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_in_every_format(tmp_path: Path, kind: str) -> None:
    rows = ROWS[kind]
    found = [
        read_labelled(path, kind=kind if kind == "ordinal" else None)
        for path in in_every_format(tmp_path, rows)
    ]
    for data in found:
        assert data.kind == kind
        assert (data.texts, data.labels) == (found[0].texts, found[0].labels)
        assert data.form == ("pair" if kind == "regression" else "single")
        assert data.unit == ("row" if data.path.suffix == ".parquet" else "line")
    tsv, csv, jsonl, _, parquet = found
    assert tsv.lines == csv.lines == [2, 3, 4]
    assert (jsonl.lines, parquet.lines) == ([1, 2, 3], [0, 1, 2])
    assert len({data.sha256 for data in found}) == 4, "that of the bytes, alike in .jsonl and .json"
    if kind == "single_label":
        assert classes_of(tsv) == ("a|c", "b")
        assert tsv.label_ids(("a|c", "b")).tolist() == [1, 0, 1]
    elif kind == "multi_label":
        assert tsv.labels == [("joy", "anger"), (), ("joy",)]
        assert classes_of(tsv) == ("anger", "joy")
        sets = tsv.label_sets(("anger", "joy", "none has it"))
        assert sets.dtype == np.bool_
        assert sets.tolist() == [[True, True, False], [False, False, False], [False, True, False]]
    elif kind == "regression":
        assert tsv.texts[2] == ("three", "")
        assert tsv.scores().dtype == np.float32
        assert tsv.scores().tolist() == [4.75, -1.5, 300.0]
        assert range_of(tsv) == (-1.5, 300.0)
    else:
        assert classes_of(tsv) == ("1", "2", "10"), "by number, not by text"
        assert tsv.label_ids(("1", "2", "10")).tolist() == [1, 0, 2]


def test_the_kind_says_which_column_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "label\tscore\ttext\na\t1\tx\nb\t2\ty\n")
    with pytest.raises(InputError, match="line 1: got the columns label and score, expected one"):
        read_labelled(path)
    assert read_labelled(path, kind="single_label").labels == ["a", "b"]
    assert read_labelled(path, kind="regression").labels == [1.0, 2.0]
    with pytest.raises(InputError, match="expected labels, which a multi_label head learns, among"):
        read_labelled(path, kind="multi_label")
    with pytest.raises(InputError, match=r"kind: got 'multilabel', expected one of \['single_"):
        read_labelled(path, kind="multilabel")
    with pytest.raises(TypeError, match="kind regression are no single_label or ordinal labels"):
        read_labelled(path, kind="regression").label_ids(("1", "2"))


def test_numbers_as_labels(tmp_path: Path) -> None:
    """Whole ones are as in TSV; others, which are likely scores, only of an order."""
    halves = lines_of({"text": "x", "label": 4.5}, {"text": "y", "label": 5})
    path = written(tmp_path, halves, "data.jsonl")
    with pytest.raises(InputError, match=r"line 1: got the label 4.5, expected a text or a whole"):
        read_labelled(path)
    assert classes_of(read_labelled(path, kind="ordinal")) == ("4.5", "5")
    flags = lines_of({"text": "x", "label": True}, {"text": "y", "label": False})
    data = read_labelled(written(tmp_path, flags, "data.jsonl"))
    assert classes_of(data) == ("false", "true")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"line 1: got the columns \[\], expected text, or text_a and text_b, among them"),
        ("text\n", "line 1: got the columns .* expected label, labels, score or spans among them"),
        ("label\ttext_a\n", "line 1: got the columns .* expected text, or text_a and text_b,"),
        ("a\tsome text\nb\tmore\n", r"line 1: got the columns \['a', 'some text'\]"),
        ("label\ttext\tlabel\n", "line 1: got more than one column 'label', expected one"),
        ("label\ttext\na\tx\nb\n", "line 3: got 1 columns, expected 2"),
        ('label\ttext\na\t"She said ""yes"""\n', "line 2 has the cell .*--quotes csv"),
        ("label\ttext\na\tx\ty\n", "line 2: got 3 columns, expected 2"),
        ("label\ttext\n\tx\n", "line 2: the label is empty"),
        ("label\ttext\n", "has no rows"),
        (b"label\ttext\na\tx\nb\t\xff\n", "line 3: not UTF-8"),
        ("labels\ttext\na|b\tx\na||b\ty\n", r"line 3: a label of 'a\|\|b' is empty, .* JSON lines"),
        ("labels\ttext\na|b\tx\n|\ty\n", r"line 3: a label of '\|' is empty"),
        ("labels\ttext\na|b|a\tx\n", "line 2: the label 'a' comes twice"),
        ("score\ttext\n1\tx\nhigh\ty\n", "line 3: got the score 'high', expected a finite number"),
        ("score\ttext\n\tx\n", "line 2: got the score ''"),
        ("score\ttext\nnan\tx\n", "line 2: got the score 'nan'"),
        ("score\ttext\n1e39\tx\n", "line 2: got the score '1e39'"),
        ("score\ttext\n1,5\tx\n", "line 2: got the score '1,5', .* with a point"),
        ("score\ttext\n1_000\tx\n", "line 2: got the score '1_000'"),
    ],
)
def test_malformed_tables(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"data.tsv.*{message}"):
        read_labelled(written(tmp_path, content))


GOOD = '{"text": "x", "label": "a"}\n'
SET = '{"text": "x", "labels": ["a"]}\n'
SCORE = '{"text": "x", "score": 1}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        (" \n\n", "has no rows"),
        ('[{"text": "x", "label": "a"}]', "line 1: is not a JSON object"),
        ("\n" + GOOD + "[]\n", "line 3: is not a JSON object"),
        (GOOD + '{"text": "x",\n', "line 2: is not a JSON object"),
        (GOOD + "[" * 100_000, "line 2: is not a JSON object"),
        (GOOD.encode() + b'{"text": "\xff"}\n', "line 2: not UTF-8"),
        (
            '{"text": "x"}\n',
            r"line 1: got the columns \['text'\], expected label, labels, score or spans",
        ),
        (GOOD + '{"text": "x"}\n', "line 2: has no 'label', expected text, label as in the first"),
        (
            GOOD + '{"text_a": "x", "text_b": "y", "label": "a"}\n',
            "line 2: has no 'text', expected",
        ),
        (GOOD + SET, "line 2: has no 'label'"),
        (
            GOOD + '{"text": null, "label": "a"}\n',
            "line 2: got None in the column text, expected a",
        ),
        (GOOD + '{"text": 3, "label": "a"}\n', "line 2: got 3 in the column text"),
        (GOOD + '{"text": "\\ud800", "label": "a"}\n', "line 2: got '.ud800' in the column text"),
        (GOOD + '{"text": "x", "label": null}\n', "line 2: got the label None, expected a text or"),
        (GOOD + '{"text": "x", "label": "\\ud800"}\n', "line 2: got the label '.ud800'"),
        (GOOD + '{"text": "x", "label": ["a"]}\n', r"line 2: got the label \['a'\], expected a"),
        (GOOD + '{"text": "x", "label": ""}\n', "line 2: the label is empty"),
        (
            GOOD + '{"text": "x", "label": 1}\n',
            "line 2: got the label 1, a number, expected a text as in .*data.jsonl, line 1",
        ),
        (
            '{"text": "x", "label": 1}\n{"text": "x", "label": true}\n',
            "line 2: got the label True, true or false, expected a number as in",
        ),
        (
            SET + '{"text": "x", "labels": "a|b"}\n',
            r"line 2: got the labels 'a\|b', expected a list",
        ),
        (SET + '{"text": "x", "labels": null}\n', "line 2: got the labels None, expected a list"),
        (SET + '{"text": "x", "labels": [""]}\n', "line 2: the label is empty"),
        (SET + '{"text": "x", "labels": ["b", "b"]}\n', "line 2: the label 'b' comes twice"),
        (
            SET + '{"text": "x", "labels": ["b", 1]}\n',
            "line 2: got the label 1, a number, expected",
        ),
        (SCORE + '{"text": "x", "score": NaN}\n', "line 2: got the score nan, expected a finite"),
        (SCORE + '{"text": "x", "score": -Infinity}\n', "line 2: got the score -inf"),
        (SCORE + '{"text": "x", "score": 1' + "0" * 400 + "}\n", "line 2: got the score 100000"),
        (SCORE + '{"text": "x", "score": "1.5"}\n', "line 2: got the score '1.5'"),
        (SCORE + '{"text": "x", "score": true}\n', "line 2: got the score True"),
        (SCORE + '{"text": "x", "score": null}\n', "line 2: got the score None"),
    ],
)
def test_malformed_json_lines(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"data.jsonl.*{message}"):
        read_labelled(written(tmp_path, content, "data.jsonl"))


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_malformed_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    for content in (b"", b"label\ttext\n", b"PAR1" * 9):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"data\.parquet: is no Parquet that can be read"):
            read_labelled(path)
    parquet(path, text=["x"] * 5000, label=["a"] * 5000)
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + bytes(60) + whole[68:])  # the footer is sound, what it is of not
    with pytest.raises(InputError, match=r"data\.parquet: is no Parquet that can be read"):
        read_labelled(path)
    with pytest.raises(InputError, match=r"data\.parquet: has no rows"):
        read_labelled(
            parquet(path, text=pa.array([], pa.string()), label=pa.array([], pa.string()))
        )
    with pytest.raises(InputError, match=r"data\.parquet: got the columns \['text'\], expected"):
        read_labelled(parquet(path, text=["x"]))
    with pytest.raises(InputError, match=r"data\.parquet, row 1: got None in the column text"):
        read_labelled(parquet(path, text=["x", None], label=["a", "b"]))
    with pytest.raises(InputError, match="row 1: got the score nan, expected a finite"):
        read_labelled(parquet(path, text=["x", "y"], score=[1.0, float("nan")]))
    with pytest.raises(InputError, match="row 0: got b'x' in the column text, expected a text"):
        read_labelled(parquet(path, text=[b"x"], label=["a"]))
    buffers = [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"x\xff")]
    broken = pa.Array.from_buffers(pa.string(), 2, buffers)
    with pytest.raises(InputError, match=r"data\.parquet, row 1: the column text is not UTF-8"):
        read_labelled(parquet(path, text=broken, label=["a", "b"]))


def test_columns_of_parquet_are_those_of_the_file(tmp_path: Path) -> None:
    """Not those that pyarrow makes of folders' names."""
    folder = tmp_path / "label=none" / "score=1"
    folder.mkdir(parents=True)
    columns = {"text": ["x", "y"], "label": pa.array(["b", "a"]).dictionary_encode()}
    path = parquet(folder / "data.pq", embedding=[[0.5], [1.5]], **columns)
    data = read_labelled(path)
    assert (data.labels, data.other_columns) == (["b", "a"], ("embedding",))


def test_quotes_are_for_delimited_files(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, "data.jsonl")
    with pytest.raises(InputError, match="got --quotes csv, expected it for TSV and CSV alone"):
        read_labelled(path, "csv")


@pytest.mark.parametrize("name", ["absent.tsv", "absent.jsonl", "absent.parquet", "folder"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        read_labelled(tmp_path / name)


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every row has the label 'a'"):
        classes_of(read_labelled(written(tmp_path, "label\ttext\na\tx\na\ty\n")))
    with pytest.raises(InputError, match="every row has the score 2, expected at least two"):
        range_of(read_labelled(written(tmp_path, "score\ttext\n2\tx\n2.0\ty\n")))
    with pytest.raises(InputError, match="no row has a label"):
        classes_of(read_labelled(written(tmp_path, "labels\ttext\n\tx\n\ty\n")))
    assert classes_of(read_labelled(written(tmp_path, "labels\ttext\na\tx\n\ty\n"))) == ("a",)


def test_unknown_label_names_its_line(tmp_path: Path) -> None:
    data = read_labelled(written(tmp_path, "label\ttext\na\tx\nc\ty\n"))
    with pytest.raises(InputError, match=r"line 3: label 'c' is not among .*\(a, b\)"):
        data.label_ids(("a", "b"))
    data = read_labelled(written(tmp_path, "labels\ttext\na\tx\nb|c\ty\n"))
    with pytest.raises(InputError, match=r"line 3: label 'c' is not among .*\(a, b\)"):
        data.label_sets(("a", "b"))
    data = read_labelled(parquet(tmp_path / "data.parquet", text=["x", "y"], label=["a", "c"]))
    with pytest.raises(InputError, match=r"data\.parquet, row 1: label 'c' is not among"):
        data.label_ids(("a", "b"))


def ordinal(*labels: str) -> LabelledTexts:
    return labelled_from([(f"text {label}", label) for label in labels], "ordinal")


def test_order_of_labels() -> None:
    assert classes_of(ordinal("10", "-1", "9", "2.5")) == ("-1", "2.5", "9", "10")
    grades = ordinal("good", "bad", "fair", "bad")
    with pytest.raises(InputError, match=r"order of the labels \(bad, fair, good\) is not known"):
        classes_of(grades)
    assert classes_of(grades, ("bad", "fair", "good")) == ("bad", "fair", "good")
    for order in (("bad", "good"), ("bad", "fair", "good", "best"), ("bad", "bad", "fair", "good")):
        with pytest.raises(InputError, match=r"got the order .* each of the labels \(bad, fair, g"):
            classes_of(grades, order)
    with pytest.raises(InputError, match=r"the labels '1' and '1\.0' are the same number"):
        classes_of(ordinal("2", "1", "1.0"))
    plain = labelled_from([("x", "a"), ("y", "b")])
    with pytest.raises(InputError, match="got an order for single_label labels"):
        classes_of(plain, ("b", "a"))
