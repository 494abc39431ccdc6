"""Labelled spans of every kind of file and library, sound and malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Sequence, Value

from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import (
    LabelledTexts,
    classes_of,
    labelled_from,
    read_labelled,
)

TEXTS = ["Lise Meitner, née in Wien", "\U0001f600 東京!", "nobody"]
SPANS = [
    [
        {"start": 21, "end": 25, "label": "PLACE"},
        {"start": 0, "end": 12, "label": "PERSON"},
    ],
    [{"start": 2, "end": 3, "label": "PLACE"}, {"start": 3, "end": 4, "label": "PLACE"}],
    [],
]
EXPECTED = [
    ((0, 12, "PERSON"), (21, 25, "PLACE")),
    ((2, 3, "PLACE"), (3, 4, "PLACE")),
    (),
]
ROWS = [{"text": text, "spans": spans} for text, spans in zip(TEXTS, SPANS, strict=True)]


def written(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered() -> Features:
    """Labels by number, as datasets keep those that it knows the names of."""
    span = {
        "start": Value("int32"),
        "end": Value("int32"),
        "label": ClassLabel(names=["PERSON", "PLACE"]),
    }
    return Features({"text": Value("string"), "spans": List(span)})


def in_memory() -> dict[str, Any]:
    table = {"text": TEXTS, "spans": SPANS}
    arrow = pa.table(table)
    dataset = Dataset.from_list(ROWS)
    of_lists = Features({**numbered(), "spans": Sequence(numbered()["spans"].feature)})
    lists = [
        {key: [span[key] for span in spans] for key in ("start", "end", "label")} for spans in SPANS
    ]
    return {
        "dicts": ROWS,
        "tuples": list(zip(TEXTS, SPANS, strict=True)),
        "pandas": pandas.DataFrame(table),
        "pandas of arrow": arrow.to_pandas(),
        "polars": polars.DataFrame(table),
        "arrow": arrow,
        "datasets": dataset,
        "datasets with numbers": Dataset.from_list(ROWS, features=numbered()),
        "datasets of lists": Dataset.from_list(
            [{"text": text, "spans": own} for text, own in zip(TEXTS, lists, strict=True)],
            features=of_lists,
        ),
    }


def check(data: LabelledTexts) -> None:
    assert (data.kind, data.form, data.texts) == ("token_label", "single", TEXTS)
    assert data.labels == EXPECTED
    assert classes_of(data) == ("PERSON", "PLACE")
    assert data.spans(("PERSON", "PLACE")).tolist() == [
        [0, 0, 12, 0],
        [0, 21, 25, 1],
        [1, 2, 3, 1],
        [1, 3, 4, 1],
    ]


@pytest.mark.parametrize("library", in_memory())
def test_rows_of_every_library(library: str) -> None:
    data = labelled_from(in_memory()[library])
    check(data)
    assert data.sha256 == labelled_from(ROWS).sha256


def test_files(tmp_path: Path) -> None:
    check(read_labelled(written(tmp_path, *ROWS)))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data.parquet")
    check(read_labelled(tmp_path / "data.parquet"))
    Dataset.from_list(ROWS, features=numbered()).to_parquet(str(tmp_path / "numbers.parquet"))
    check(read_labelled(tmp_path / "numbers.parquet"))


def test_the_kind_may_be_said(tmp_path: Path) -> None:
    path = written(tmp_path, *({**row, "label": "x"} for row in ROWS))
    with pytest.raises(InputError, match="line 1: got the columns label and spans, expected one"):
        read_labelled(path)
    check(read_labelled(path, kind="token_label"))


TEXT = "Lise Meitner's Straße, 10 km"


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (None, "got the spans None, expected a list of objects with start"),
        ("[]", r"got the spans '\[\]', expected a list"),
        ({"start": 0, "end": 4, "label": "P"}, "got the spans {'start': 0.*, expected a list"),
        ([[0, 4, "P"]], r"got the span \[0, 4, 'P'\], expected an object with start"),
        ([{"start": 0, "end": 4}], "got the span {'start': 0, 'end': 4}, expected an object"),
        ([{"start": 0.0, "end": 4, "label": "P"}], "got the span 0.0 to 4, expected whole numbers"),
        ([{"start": "0", "end": 4, "label": "P"}], "got the span '0' to 4, expected whole numbers"),
        ([{"start": False, "end": 4, "label": "P"}], "got the span False to 4, expected whole"),
        ([{"start": 0, "end": None, "label": "P"}], "got the span 0 to None, expected whole"),
        ([{"start": -4, "end": 4, "label": "P"}], "got the span -4 to 4, expected a start from 0"),
        ([{"start": 26, "end": 29, "label": "P"}], "got the span 26 to 29, .* at most 28, the"),
        ([{"start": 4, "end": 4, "label": "P"}], "got the span 4 to 4, expected a start from 0"),
        ([{"start": 4, "end": 0, "label": "P"}], "got the span 4 to 0, expected a start from 0"),
        ([{"start": 0, "end": 4, "label": 7}], "got the label 7 of the span 0 to 4, expected a"),
        ([{"start": 0, "end": 4, "label": None}], "got the label None of the span 0 to 4"),
        ([{"start": 0, "end": 4, "label": ""}], "got the label '' of the span 0 to 4"),
        (
            [{"start": 0, "end": 9, "label": "P"}],
            "got the span 0 to 9, 'Lise Meit', expected whole words .*, 'Lise Meitner', 0 to 12",
        ),
        (
            [{"start": 16, "end": 21, "label": "P"}],
            "got the span 16 to 21, 'traße', expected whole words .*, 'Straße', 15 to 21",
        ),
        (
            [{"start": 4, "end": 13, "label": "P"}],
            """got the span 4 to 13, " Meitner'", expected .* blanks .*, "Meitner'", 5 to 13""",
        ),
        (
            [{"start": 22, "end": 23, "label": "P"}],
            "got the span 22 to 23, ' ', expected .*, words",
        ),
        (
            [{"start": 0, "end": 12, "label": "P"}, {"start": 5, "end": 21, "label": "Q"}],
            "got the spans 0 to 12 and 5 to 21, expected spans that have nothing in common",
        ),
        (
            [{"start": 5, "end": 12, "label": "P"}, {"start": 0, "end": 21, "label": "Q"}],
            "got the spans 0 to 21 and 5 to 12, expected",
        ),
        (
            [{"start": 5, "end": 12, "label": "P"}, {"start": 5, "end": 12, "label": "P"}],
            "got the spans 5 to 12 and 5 to 12, expected",
        ),
    ],
)
def test_malformed_spans(tmp_path: Path, spans: Any, message: str) -> None:
    path = written(tmp_path, ROWS[0], {"text": TEXT, "spans": spans})
    with pytest.raises(InputError, match=f"data.jsonl, line 2: {message}"):
        read_labelled(path)


def test_numbers_without_a_name() -> None:
    rows = Dataset.from_list(ROWS, features=numbered()).to_list()
    with pytest.raises(InputError, match="row 0: got the label 1 of the span 21 to 25, expected a"):
        labelled_from(rows)
    rows[1]["spans"][0]["label"] = -1  # as datasets mark what nobody knows
    with pytest.raises(InputError, match="row 1: got the label -1 of the span 2 to 3, expected a"):
        labelled_from(Dataset.from_list(rows, features=numbered()))


def test_labels_that_training_has_not(tmp_path: Path) -> None:
    train = read_labelled(written(tmp_path, *ROWS))
    dev = read_labelled(
        written(
            tmp_path,
            ROWS[2],
            {"text": "Rhein", "spans": [{"start": 0, "end": 5, "label": "RIVER"}]},
            name="dev.jsonl",
        )
    )
    with pytest.raises(InputError, match=r"dev.jsonl, line 2: label 'RIVER' is not among the"):
        dev.spans(classes_of(train))
    with pytest.raises(TypeError, match="kind token_label are no multi_label labels"):
        train.label_sets(("PERSON",))


def test_no_span_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.jsonl: no row has a span, expected some. Add"):
        classes_of(read_labelled(written(tmp_path, ROWS[2], ROWS[2])))


@pytest.mark.parametrize("name", ["data.tsv", "data.csv"])
def test_tables_have_no_spans(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("spans\ttext\n[]\tx\n".replace("\t", "," if name == "data.csv" else "\t"))
    with pytest.raises(InputError, match=f"{name}: has a column spans, expected JSON lines or Par"):
        read_labelled(path)


def test_pairs_have_no_spans(tmp_path: Path) -> None:
    path = written(tmp_path, {"text_a": "x", "text_b": "y", "spans": []})
    with pytest.raises(
        InputError, match=r"data\.jsonl: got spans of pairs of texts, expected them"
    ):
        read_labelled(path)
    with pytest.raises(InputError, match="rows: got spans of pairs of texts, expected them of"):
        labelled_from([(("x", "y"), [{"start": 0, "end": 1, "label": "P"}])])
