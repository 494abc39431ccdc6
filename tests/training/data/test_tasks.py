"""Folders of tasks, sound and not."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import polars
import pytest

from bitheads.engine.errors import HeadError, InputError
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.data.tasks import choose_tasks, read_task, read_test


@pytest.fixture
def own_folder(task_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(task_folder, tmp_path / "tasks"))


def test_whole_task(task_folder: Path) -> None:
    task = read_task(task_folder / "topics", "DOC")
    assert (task.name, task.type, task.form) == ("topics", "DOC", "single")
    assert task.classes == ("computing", "food", "sport", "travel")
    plain = read_labelled(task_folder / "topics" / "train.tsv")
    assert task.train.texts == plain.texts
    assert [task.classes[i] for i in task.train.label_ids] == plain.labels
    assert task.to_json()["train"] == {"sha256": plain.sha256, "file_rows": 200, "rows": 200}


def test_limits_draw_rows_by_seed(task_folder: Path) -> None:
    def texts(rows: int, seed: int = 0) -> list[object]:
        task = read_task(task_folder / "topics", None, rows, 7, seed)
        assert (len(task.train), task.train.file_rows, len(task.dev)) == (rows, 200, 7)
        plain = read_labelled(task_folder / "topics" / "train.tsv")
        label_of = dict(zip(plain.texts, plain.labels, strict=True))
        assert [task.classes[i] for i in task.train.label_ids] == [
            label_of[text] for text in task.train.texts
        ]
        return list(task.train.texts)

    assert texts(30) == texts(30)
    assert set(texts(10)) < set(texts(30))
    assert texts(30) != texts(30, seed=1)


def test_a_sample_without_a_class_keeps_all_classes(task_folder: Path) -> None:
    task = read_task(task_folder / "topics", None, 1, 1)
    assert len(task.classes) == 4
    assert len(np.unique(task.train.label_ids)) == 1


def test_choice(task_folder: Path) -> None:
    everything = {"paraphrase": "PP", "sport": "DOC", "topics": "DOC"}
    assert choose_tasks(task_folder) == everything
    assert list(choose_tasks(task_folder, ["topics", "sport"])) == ["sport", "topics"]
    assert list(choose_tasks(task_folder, exclude_tasks=["sport"])) == ["paraphrase", "topics"]
    assert list(choose_tasks(task_folder, exclude_types=["DOC"])) == ["paraphrase"]


def test_no_index(own_folder: Path) -> None:
    (own_folder / "index.tsv").unlink()
    assert set(choose_tasks(own_folder).values()) == {None}
    with pytest.raises(InputError, match=r"has no type 'DOC'.*add it to the index"):
        choose_tasks(own_folder, exclude_types=["DOC"])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"tasks": ["absent"]}, r"has no task 'absent', expected some of \['paraphrase'"),
        ({"exclude_tasks": ["topcis"]}, "has no task 'topcis'"),
        ({"exclude_types": ["NLI"]}, r"has no type 'NLI', expected some of \['DOC', 'PP'\]"),
        ({"exclude_types": ["DOC", "PP"]}, "no task is left"),
    ],
)
def test_wrong_choice(task_folder: Path, choice: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_tasks(task_folder, **choice)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task\tkind\n", r"index.tsv, line 1: got the columns \['task', 'kind'\]"),
        ("", "index.tsv, line 1: got the columns"),
        ("name\ttype\ntopics\n", "index.tsv, line 2: got 1 columns, expected 2"),
        ("name\ttype\n\udcff", "index.tsv, line 2: not UTF-8"),
    ],
)
def test_malformed_index(own_folder: Path, content: str, message: str) -> None:
    (own_folder / "index.tsv").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=message):
        choose_tasks(own_folder)


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("a\tx\nb\n", "a\tx\n", r"train.tsv, line 3: got 1 columns, expected 2"),
        ("a\tx\nb\ty\n", "a\tx\n\ty\n", r"dev.tsv, line 3: the label is empty"),
        ("a\tx\na\ty\n", "a\tx\n", r"train.tsv: every row has the label 'a'"),
        ("a\tx\nb\ty\n", "a\tx\nc\ty\n", r"dev.tsv, line 3: label 'c' is not among the training"),
        ("a\tx\nb\ty\n", "", r"dev.tsv: has no rows"),
    ],
)
def test_unsound_task(tmp_path: Path, train: str, dev: str, message: str) -> None:
    (tmp_path / "train.tsv").write_text(f"label\ttext\n{train}")
    (tmp_path / "dev.tsv").write_text(f"label\ttext\n{dev}")
    with pytest.raises(InputError, match=message):
        read_task(tmp_path, max_train_rows=1, max_dev_rows=1)


def test_files_of_two_forms(own_folder: Path) -> None:
    shutil.copyfile(own_folder / "paraphrase" / "dev.tsv", own_folder / "topics" / "dev.tsv")
    with pytest.raises(
        InputError, match=r"dev.tsv: got texts of the form 'pair', expected 'single'"
    ):
        read_task(own_folder / "topics")


def test_missing_files(own_folder: Path) -> None:
    (own_folder / "topics" / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"dev.tsv: cannot be read"):
        read_task(own_folder / "topics")
    with pytest.raises(InputError, match="absent: cannot be read"):
        choose_tasks(own_folder / "absent")


def test_a_name_that_no_head_could_have(own_folder: Path) -> None:
    (own_folder / "topics").rename(own_folder / "my topics")
    with pytest.raises(HeadError, match="task name: got 'my topics'"):
        read_task(own_folder / "my topics")


def test_csv_is_the_same_task(own_folder: Path) -> None:
    """The same rows are drawn, and quotes and commas are no part of the texts."""
    expected = read_task(own_folder / "topics", None, 9, 9)
    for part in ("train", "dev"):
        tsv = own_folder / "topics" / f"{part}.tsv"
        rows = [line.split("\t") for line in tsv.read_text(encoding="utf-8").splitlines()]
        with tsv.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    with pytest.raises(InputError, match=r"has both train\.tsv and train\.csv, expected one"):
        read_task(own_folder / "topics")
    for part in ("train", "dev"):
        (own_folder / "topics" / f"{part}.tsv").unlink()
    task = read_task(own_folder / "topics", None, 9, 9)
    assert (task.classes, task.train.texts) == (expected.classes, expected.train.texts)
    assert "topics" in choose_tasks(own_folder)
    index = own_folder / "index.tsv"
    types = choose_tasks(own_folder)
    index.with_suffix(".csv").write_text(index.read_text("utf-8").replace("\t", ","), "utf-8")
    index.unlink()
    assert choose_tasks(own_folder) == types


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".parquet", ".pq"])
def test_other_formats_are_the_same_task(own_folder: Path, suffix: str) -> None:
    expected = read_task(own_folder / "topics", None, 9, 9)
    for part in ("train", "dev"):
        tsv = own_folder / "topics" / f"{part}.tsv"
        table = polars.read_csv(tsv, separator="\t", quote_char=None).with_row_index()
        path = tsv.with_suffix(suffix)
        table.write_ndjson(path) if "js" in suffix else table.write_parquet(path)
        tsv.unlink()
    task = read_task(own_folder / "topics", None, 9, 9)
    assert (task.classes, task.train.texts) == (expected.classes, expected.train.texts)
    assert task.dev.label_ids.tolist() == expected.dev.label_ids.tolist()
    assert "topics" in choose_tasks(own_folder)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("labels\ttext", "a|b\tx", "moods/train.tsv has multi_label labels, expected single_label"),
        ("score\ttext", "1\tx", "moods/train.tsv has regression labels, expected single_label"),
        (
            "label\ttext\tstart\tend",
            "a\tx\t0\t1",
            "moods/train.tsv has labels of words, from start to end, expected labels of texts",
        ),
    ],
)
def test_tasks_of_other_kinds_are_refused_by_name(
    own_folder: Path, header: str, row: str, message: str
) -> None:
    """They may be there beside tasks that are chosen."""
    (own_folder / "moods").mkdir()
    for part in ("train", "dev", "test"):
        (own_folder / "moods" / f"{part}.tsv").write_text(f"{header}\n{row}\n")
    assert "moods" in choose_tasks(own_folder)
    with pytest.raises(InputError, match=f"task 'moods': .*{message}.* Leave the task out"):
        read_task(own_folder / "moods")
    task = read_task(own_folder / "topics")
    with pytest.raises(InputError, match=message.replace("train", "test")):
        read_test(own_folder / "moods", task)
    assert len(read_task(own_folder / "topics").classes) == 4


def test_quotes_of_a_task(own_folder: Path) -> None:
    for part in ("train", "dev", "test"):
        path = own_folder / "topics" / f"{part}.tsv"
        path.write_text('label\ttext\na\t"so ""it"" is"\nb\tx\n', encoding="utf-8")
    with pytest.raises(InputError, match=r'quotes\.topics = "csv" in the configuration, if'):
        read_task(own_folder / "topics")
    found = {
        quotes: read_task(own_folder / "topics", quotes={"topics": quotes})
        for quotes in ("csv", "none")
    }
    assert found["csv"].train.texts == ['so "it" is', "x"]
    assert found["none"].dev.texts == ['"so ""it"" is"', "x"]
    assert read_test(own_folder / "topics", found["csv"]).texts == ['so "it" is', "x"]
    assert found["csv"].to_json() != found["none"].to_json(), "a run of one is not resumed as other"
