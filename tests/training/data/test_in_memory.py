"""Labelled texts that a program has in memory, and files that its libraries write."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value

from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import LabelledTexts, labelled_from, read_labelled

TABLES: dict[str, dict[str, list[Any]]] = {
    "single_label": {
        "id": [7, 8, 9],
        "text": ["one", 'two, "so"\n\u2603', ""],
        "label": ["b", "a|b", "b"],
    },
    "multi_label": {"labels": [["joy", "fear"], [], ["joy"]], "text": ["one", "two", "three"]},
    "regression": {"text_a": ["one", "two"], "score": [0.25, 5], "text_b": ["uno", "dos"]},
}


def content(data: LabelledTexts) -> tuple[Any, ...]:
    return data.kind, data.form, data.texts, data.labels


def expected(kind: str) -> tuple[Any, ...]:
    table = TABLES[kind]
    if kind == "regression":
        return kind, "pair", [("one", "uno"), ("two", "dos")], [0.25, 5.0]
    labels = table["label"] if kind == "single_label" else [tuple(x) for x in table["labels"]]
    return kind, "single", table["text"], labels


def in_memory(kind: str) -> list[Any]:
    """The table as every library has it."""
    table = TABLES[kind]
    dataset = Dataset.from_dict(table)
    frame = pandas.DataFrame(table)
    return [
        [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)],
        (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)),
        frame,
        frame.set_index(pandas.Index(list("xyz")[: len(frame)])),
        frame.convert_dtypes(dtype_backend="pyarrow"),
        polars.DataFrame(table, strict=False),
        pa.table(table),
        pa.table(table).to_batches()[0],
        dataset,
        dataset.with_format("numpy"),
        dataset.with_format("pandas"),
        dataset.to_iterable_dataset(),
        dataset.select(range(len(dataset))[::-1]).select(range(len(dataset))[::-1]),
    ]


@pytest.mark.parametrize("kind", TABLES)
def test_rows_of_every_library(kind: str) -> None:
    found = [labelled_from(rows) for rows in in_memory(kind)]
    for data in found:
        assert content(data) == expected(kind)
        assert {type(text) for text in data.texts} <= {str, tuple}
        assert data.lines == list(range(len(data)))
        assert data.other_columns == (("id",) if kind == "single_label" else ())
        assert data.sha256 == found[0].sha256


@pytest.mark.parametrize("kind", TABLES)
def test_files_of_every_library(tmp_path: Path, kind: str) -> None:
    _, _, frame, *_, dataset = in_memory(kind)
    other = polars.DataFrame(TABLES[kind], strict=False)
    frame.to_json(tmp_path / "pandas.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "pandas.parquet")
    other.write_ndjson(tmp_path / "polars.ndjson")
    other.write_parquet(tmp_path / "polars.pq")
    dataset.to_json(tmp_path / "datasets.json")
    dataset.to_parquet(tmp_path / "datasets.parquet")
    if kind != "multi_label":  # a list in a cell is nothing that could be read back
        frame.to_csv(tmp_path / "pandas.csv", index=False)
        frame.to_csv(tmp_path / "pandas.tsv", sep="\t", index=False)
        other.write_csv(tmp_path / "polars.csv")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == (6 if kind == "multi_label" else 9)
    for path in paths:
        quotes = "csv" if path.suffix == ".tsv" else None
        assert content(read_labelled(path, quotes)) == expected(kind), path
    # Its lists are arrays.
    assert content(labelled_from(pandas.read_parquet(tmp_path / "datasets.parquet"))) == expected(
        kind
    )


def test_numbered_classes_get_their_names(tmp_path: Path) -> None:
    names = ["none", "joy", "fear"]
    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=names),
            "labels": Sequence(ClassLabel(names=names)),
            "plain": Value("int64"),
        }
    )
    table = {"text": ["x", "y"], "label": [2, 0], "labels": [[1, 2], []], "plain": [2, 0]}
    dataset = Dataset.from_dict(table, features=features)
    dataset.to_parquet(tmp_path / "hub.parquet")
    for kind, labels in (
        ("single_label", ["fear", "none"]),
        ("multi_label", [("joy", "fear"), ()]),
    ):
        assert read_labelled(tmp_path / "hub.parquet", kind=kind).labels == labels
        for rows in (dataset, dataset.to_iterable_dataset(), dataset.data.table):
            assert labelled_from(rows, kind).labels == labels
    plain = dataset.remove_columns(["label", "labels"]).rename_column("plain", "label")
    assert labelled_from(plain).labels == ["2", "0"]
    assert labelled_from(dataset.to_pandas(), "single_label").labels == ["2", "0"]
    unlabelled = Dataset.from_dict({**table, "label": [2, -1]}, features=features)
    with pytest.raises(InputError, match=r"rows, row 1: got the label -1, expected 0 to 2"):
        labelled_from(unlabelled, "single_label")


def test_numbered_classes_of_earlier_versions() -> None:
    """Then a list's type was a list of one type."""
    names = {"names": ["none", "joy"], "_type": "ClassLabel"}
    metadata = {b"huggingface": json.dumps({"info": {"features": {"labels": [names]}}}).encode()}
    table = pa.table({"text": ["x"], "labels": [[1, 0]]}).replace_schema_metadata(metadata)
    assert labelled_from(table).labels == [("joy", "none")]


def test_decimals_are_numbers() -> None:
    scores = [Decimal("1.50"), Decimal("-2")]
    assert labelled_from(pa.table({"text": ["x", "y"], "score": scores})).labels == [1.5, -2.0]
    assert labelled_from(polars.DataFrame({"text": ["x", "y"], "score": scores})).labels == [
        1.5,
        -2,
    ]


@pytest.mark.parametrize(
    "metadata",
    [b"[]", b"{", b'{"info": {"features": [1]}}', b'{"info": {"features": {"label": 1}}}'],
)
def test_metadata_that_is_no_names(metadata: bytes) -> None:
    table = pa.table({"text": ["x"], "label": [1]}).replace_schema_metadata(
        {b"huggingface": metadata}
    )
    assert labelled_from(table).labels == ["1"]


def test_tuples_of_text_and_label() -> None:
    assert content(labelled_from([("x", "a"), ("y", "b")]))[0] == "single_label"
    pairs = labelled_from([(("x", "y"), 1), (["v", "w"], 0)])
    assert content(pairs) == ("single_label", "pair", [("x", "y"), ("v", "w")], ["1", "0"])
    sets = labelled_from([("x", ["b", "a"]), ("y", set()), ("z", set("gcfabed"))])
    assert sets.labels == [("b", "a"), (), tuple("abcdefg")], "a set has no order of its own"
    for scores in ([1, 2.5], [np.int64(1), np.float32(2.5)]):
        data = labelled_from(list(zip("xy", scores, strict=True)))
        assert (data.kind, data.labels) == ("regression", [1.0, 2.5])
    assert labelled_from([("x", 1), ("y", 2)], "regression").labels == [1.0, 2.0]
    assert labelled_from([("x", np.bool_(True)), ("y", False)]).labels == ["true", "false"]
    texts = labelled_from([(np.str_("x"), np.str_("a"))])
    assert {type(text) for text in [*texts.texts, *texts.labels]} == {str}


def test_what_is_hashed_is_what_is_learnt() -> None:
    rows = [("x", "a"), ("y", "b")]
    same = labelled_from([{"label": label, "n": 1, "text": text} for text, label in rows])
    assert labelled_from(rows).sha256 == same.sha256
    others = [[("x", "a"), ("y", "c")], [("x", "a"), ("z", "b")], rows[::-1], rows[:1]]
    assert len({labelled_from(each).sha256 for each in [rows, *others]}) == 5


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x\ta", r"train: got 'x\\ta', a str, expected a list of dicts, a list of \(text, label\)"),
        ({"text": ["x"], "label": ["a"]}, "train: got .*, a dict, expected"),
        (3, "train: got 3, a int, expected"),
        ([], "train: has no rows"),
        (pandas.DataFrame({"text": [], "label": []}), "train: has no rows"),
        (["x"], "train, row 0: got 'x', a str, expected a list of dicts"),
        ([("x", "a"), ("y",)], r"train, row 1: got \('y',\), a tuple, expected"),
        ([("x", "y", "a")], "train, row 0: got"),
        ([("x", "a"), {"text": "y", "label": "a"}], "train, row 1: got {'text': 'y'"),
        ([("x", "a"), (("x", "y"), "a")], r"row 1: got the text \('x', 'y'\), expected one text"),
        ([(("x", "y"), "a"), ("x", "a")], "row 1: got the text 'x', expected a pair of texts"),
        ([(None, "a")], "row 0: got None in the column text, expected a text"),
        (
            [("x", "a"), ("y", 1)],
            "train, row 1: got the label 1, a number, expected a text as in t",
        ),
        ([("x", None)], "row 0: got the label None, expected a text or a whole number"),
        ([("x", {"a": 1})], r"row 0: got the labels {'a': 1}, expected a list of labels"),
        ([{"text": "x", "label": "a"}, {"text": "y"}], "train, row 1: has no 'label', expected"),
        (
            [{"text": "x"}],
            r"train, row 0: got the columns \['text'\], expected label, labels, score or",
        ),
        (pandas.DataFrame({0: ["x"], 1: ["a"]}), r"train: got the columns \['0', '1'\]"),
        (
            pandas.DataFrame([["x", "a", "b"]], columns=["text", "label", "label"]),
            "train: got more than one column 'label'",
        ),
        (
            pandas.DataFrame({"text": ["x", None], "label": ["a", "b"]}, dtype=object),
            "train, row 1: got None in the column text",
        ),
        (
            pandas.DataFrame({"text": ["x", "y"], "label": ["a", None]}),
            "train, row 1: got the label nan",
        ),
        (
            pandas.DataFrame({"text": ["x", "y"], "score": [1, None]}),
            "train, row 1: got the score nan, expected a finite number",
        ),
        (
            pandas.DataFrame({"text": ["x"], "labels": ["a|b"]}),
            r"train, row 0: got the labels 'a\|b', expected a list of labels.*\.split\('\|'\)",
        ),
        (polars.LazyFrame({"text": ["x"], "label": ["a"]}), "train: got a LazyFrame.* Collect it"),
        (polars.DataFrame({"text": ["x"], "label": [None]}), "train, row 0: got the label None"),
        (
            DatasetDict({"train": Dataset.from_dict({"text": ["x"]})}),
            "of a dict of splits pass one",
        ),
        (Dataset.from_dict({"text": ["x"]}), r"train: got the columns \['text'\], expected label"),
    ],
)
def test_malformed(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        labelled_from(rows, name="train")


def test_no_library_is_imported(tmp_path: Path) -> None:
    """Nor pyarrow, until there is a Parquet file."""
    (tmp_path / "data.jsonl").write_text('{"text": "x", "labels": ["a"]}\n')
    program = """
import sys
from pathlib import Path
from bitheads.training.data.labelled_texts import labelled_from, read_labelled
labelled_from([{"text": "x", "score": 1.5}])
read_labelled(Path(sys.argv[1]))
print(sorted({"datasets", "pandas", "polars", "pyarrow", "torch"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "data.jsonl")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"
