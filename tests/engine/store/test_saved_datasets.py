"""`bitheads encode --input` of data sets as Hugging Face's `datasets` saves and publishes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, disable_progress_bars
from store_cases import contents
from tiny_encoders import corpus

from bitheads import InputError
from bitheads.engine.commands.encode import main
from bitheads.engine.store import FeatureStore
from bitheads.engine.texts.text_files import TextFile
from bitheads.engine.texts.text_inputs import open_input

TEXTS = corpus()[:30]
ROWS = {
    "text": TEXTS,
    "id": [f"id {i}" for i in range(30)],
    "label": [i % 2 for i in range(30)],
    "stars": [None if i % 7 == 0 else i / 2 for i in range(30)],
    "tags": [["x"] * (i % 3) for i in range(30)],
}
Run = Callable[..., int]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Run:
    def call(store: str, *options: object) -> int:
        fixed = ["--bundle", tiny_bundle, "--backend", "onnxruntime", "--store", tmp_path / store]
        return main([str(option) for option in (*fixed, *options)])

    return call


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    disable_progress_bars()
    return Dataset.from_dict(ROWS).cast_column("label", ClassLabel(names=["no", "yes"]))


def stored(folder: Path) -> list[tuple[Any, ...]]:
    query = f"SELECT id, label, stars, tags FROM read_parquet('{folder}/*.parquet')"
    return sorted(duckdb.sql(query).fetchall(), key=lambda row: int(row[0][3:]))


def test_a_saved_data_set(run: Run, tmp_path: Path, dataset: Dataset) -> None:
    """Its side files are none of it, and columns keep their types."""
    dataset.save_to_disk(tmp_path / "saved", num_shards=3)
    columns = ["--columns", "label", "stars", "tags"]
    assert run("store", "--input", tmp_path / "saved", *columns, "--progress") == 0
    expected = zip(ROWS["id"], ROWS["label"], ROWS["stars"], ROWS["tags"], strict=True)
    assert stored(tmp_path / "store") == [*expected]
    schema = pq.read_schema(next((tmp_path / "store").glob("*.parquet")))
    assert [schema.field(name).type for name in ("label", "stars", "tags")] == [
        pa.int64(),
        pa.float64(),
        pa.list_(pa.string()),
    ]
    dataset.to_parquet(tmp_path / "whole.parquet")
    assert run("one", "--input", tmp_path / "whole.parquet", *columns) == 0
    assert contents(FeatureStore(tmp_path / "one")) == contents(FeatureStore(tmp_path / "store"))


def test_rows_come_in_the_order_of_the_state(tmp_path: Path, dataset: Dataset) -> None:
    dataset.remove_columns("id").save_to_disk(tmp_path / "saved", num_shards=3)
    path = tmp_path / "saved" / "state.json"
    state = json.loads(path.read_text())
    state["_data_files"].reverse()
    path.write_text(json.dumps(state))
    (tmp_path / "saved" / "cache-0123.arrow").write_bytes(b"what map() leaves")
    expected = [str(text) for text in TEXTS[20:] + TEXTS[10:20] + TEXTS[:10]]
    for named in (tmp_path / "saved", tmp_path):  # itself, and a folder that it is in
        rows = list(open_input([str(named)]).rows())
        assert rows == [(str(i), text) for i, text in enumerate(expected)]


def test_splits(
    run: Run, tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    both = DatasetDict({"train": dataset.select(range(20)), "test": dataset.select([21, 29])})
    both.save_to_disk(tmp_path / "saved")
    assert run("store", "--input", tmp_path / "saved") == 1
    shown = capsys.readouterr().err
    assert f"--input {tmp_path}/saved: is a data set of the splits ['test', 'train']" in shown
    assert f"Name it: --input {tmp_path}/saved/train." in shown
    assert run("store", "--input", tmp_path / "saved" / "train") == 0
    assert list(contents(FeatureStore(tmp_path / "store"))) == ROWS["id"][:20]
    # Rows that were selected are those that are saved, not all of their table.
    assert run("store", "--input", tmp_path / "saved" / "train", tmp_path / "saved" / "test") == 0
    assert len(contents(FeatureStore(tmp_path / "store"))) == 22


@pytest.mark.parametrize(
    "state", ["{", "[]", "{}", '{"_data_files": [{}]}', '{"_data_files": [{"filename": "../a"}]}']
)
def test_a_state_that_says_no_files(tmp_path: Path, dataset: Dataset, state: str) -> None:
    dataset.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"state\.json: says no files of a data set"):
        open_input([str(tmp_path / "saved")])


def test_a_remote_one(tmp_path: Path, dataset: Dataset) -> None:
    dataset.save_to_disk(tmp_path / "saved", num_shards=2)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "saved"), "/bucket/saved", recursive=True)
    try:
        texts = open_input(["memory://bucket/saved"], own_columns=["label"])
        assert [row[:2] for row in texts.full_rows()] == [*zip(ROWS["id"], TEXTS, strict=True)]
        assert texts.count() == 30
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_file_of_it_is_missing(tmp_path: Path, dataset: Dataset) -> None:
    dataset.save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "saved" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match=r"data-00001-of-00002.arrow: cannot be read \(no such"):
        open_input([str(tmp_path / "saved")])


def test_a_repository_of_parquet(run: Run, tmp_path: Path, dataset: Dataset) -> None:
    """As one is downloaded: a card beside `data`, splits by their files' names."""
    data = tmp_path / "repository" / "data"
    data.mkdir(parents=True)
    (tmp_path / "repository" / "README.md").write_text("---\n---\n")
    for number in range(3):
        shard = dataset.shard(3, number, contiguous=True)
        shard.to_parquet(data / f"train-{number:05}-of-00003.parquet")
    dataset.select([0]).to_parquet(data / "test-00000-of-00001.parquet")
    columns = ["--columns", "label", "stars", "tags"]
    assert run("store", "--input", data / "train-*", *columns) == 0
    expected = zip(ROWS["id"], ROWS["label"], ROWS["stars"], ROWS["tags"], strict=True)
    assert stored(tmp_path / "store") == [*expected]


@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
def test_arrow_files_of_another_program(tmp_path: Path, compression: Any) -> None:
    """polars' have an end that says where its batches are, and a stream has none."""
    frame = pl.DataFrame({"id": ROWS["id"], "text": TEXTS})
    frame.write_ipc(tmp_path / "a.arrow", compression=compression)
    frame.write_ipc_stream(tmp_path / "b.arrows", compression=compression)
    frame.to_pandas().to_feather(tmp_path / "c.feather")
    for name in ("a.arrow", "b.arrows", "c.feather"):
        file = TextFile(tmp_path / name)
        rows = list(file.rows())
        assert rows == [*zip(ROWS["id"], TEXTS, strict=True)]
        assert file.count() == 30
        assert [row for within in file.ranges(7) for row in file.rows(within)] == rows


def test_arrow_that_is_damaged(tmp_path: Path, dataset: Dataset) -> None:
    """Cut short, no Arrow at all, or offsets that lead out of the column."""
    path = tmp_path / "a.arrow"
    table = pa.table({"text": TEXTS})
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=10)
    whole = path.read_bytes()
    cuts = [whole[: -8 * n] for n in range(1, len(whole) // 8)]  # some end with a batch
    for content in (*cuts, b"", b"no Arrow", b"ARROW1"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a.arrow: cannot be read"):
            list(TextFile(path).rows())
    offsets = pa.py_buffer(memoryview(b"\0\0\0\0\xff\xff\0\0\1\0\0\0"))
    wrong = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"x")])
    batch = pa.RecordBatch.from_arrays([wrong], ["text"])
    with pa.ipc.new_stream(path, batch.schema) as stream:
        stream.write_batch(batch)
    with pytest.raises(InputError, match=r"a\.arrow: cannot be read"):
        list(TextFile(path).rows())
    not_utf8 = pa.array([b"x", b"\xff"]).view(pa.string())
    with pa.ipc.new_stream(path, batch.schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays([not_utf8], ["text"]))
    with pytest.raises(InputError, match=r"row 1 has b'\\xff' in column 'text'"):
        list(TextFile(path).rows())
