"""`bitheads backfill --pairs`: a row per pair and task, as predict says it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from random_heads import random_head, random_two_texts_head

from bitheads import Engine
from bitheads.engine.commands.backfill import main
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.jobs import backfill_pairs
from bitheads.engine.kinds import Decision
from bitheads.engine.store import FeatureStore, StoreWriter

TEXTS = [f"{start} {end}" for start in ("The tide", "A film", "Mud") for end in ("was out.", "is")]
IDS = [f"text-{i}" for i in range(len(TEXTS))]
PAIRS = [(i, j) for i in range(len(TEXTS)) for j in range(len(TEXTS)) if (i + j) % 4]


@pytest.fixture
def bundle(own_bundle: Path) -> Path:
    spec = Engine.load(own_bundle, "onnxruntime").spec
    decision = Decision(reject_above=0.0, reject_scale=1.5)
    for head in (
        random_head(spec, "tone"),
        random_two_texts_head(spec, "apart", seed=1),
        random_two_texts_head(
            spec, "near", PositionPooling.MEAN, seed=2, vector_size=9, decision=decision
        ),
        random_two_texts_head(
            spec,
            "size",
            labels=(),
            kind="regression",
            seed=3,
            decision=Decision(value_range=(-1e3, 1e3)),
        ),
    ):
        write_head(head, own_bundle / "heads" / f"{head.task}.safetensors")
    return own_bundle


@pytest.fixture
def engine(bundle: Path) -> Engine:
    return Engine.load(bundle, "onnxruntime")


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> FeatureStore:
    """Several parts of several row groups."""
    store = FeatureStore(tmp_path / "store", engine.spec)
    with StoreWriter(store, row_group_bytes=300) as writer:
        for part in range(2):
            chosen = slice(3 * part, 3 * part + 3)
            writer.append(IDS[chosen], engine.encode(TEXTS[chosen]))
            writer.flush()
    store.refresh()
    return store


@pytest.fixture
def run(bundle: Path, store: FeatureStore, tmp_path: Path) -> Callable[..., int]:
    def call(*options: object) -> int:
        fixed = ["--bundle", bundle, "--store", store.folder, "--output", tmp_path / "answers"]
        return main([str(option) for option in (*fixed, *options)])

    return call


def write_pairs(path: Path, pairs: Sequence[tuple[int, int]] = PAIRS) -> Path:
    rows = [(IDS[a], IDS[b]) for a, b in pairs]
    names = ("id_a", "id_b")
    if path.suffix == ".parquet":
        pq.write_table(pa.table([*zip(*rows, strict=True)], names=names), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        objects = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        path.write_text("\n".join([*objects, ""]), encoding="utf-8")
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [mark.join(row) for row in (names, *rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(folder: Path, task: str) -> pa.Table:
    return ds.dataset(sorted((folder / "answers" / f"task={task}").glob("[!.]*"))).to_table()


def check(folder: Path, engine: Engine, pairs: Sequence[tuple[int, int]] = PAIRS) -> None:
    wanted = engine.predict([(TEXTS[a], TEXTS[b]) for a, b in pairs], ["apart", "near", "size"])
    for task, prediction in wanted.items():
        table = read(folder, task)
        assert table["id_a"].to_pylist() == [IDS[a] for a, _ in pairs]
        assert table["id_b"].to_pylist() == [IDS[b] for _, b in pairs]
        if prediction.values is not None:
            assert table["value"].to_pylist() == prediction.values.tolist()
            continue
        assert table["label"].to_pylist() == [*prediction.top]
        assert table["probability"].to_pylist() == prediction.probability.tolist()
    assert read(folder, "near")["accepted"].to_pylist() == wanted["near"].accepted.tolist()
    assert read(folder, "near")["out_of_domain"].to_numpy().std() > 1e-3


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_answers_are_those_of_predict(
    run: Callable[..., int],
    engine: Engine,
    tmp_path: Path,
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(backfill_pairs, "BLOCK_PAIRS", 10)
    assert run("--pairs", write_pairs(tmp_path / f"pairs{suffix}")) == 0
    assert f"{len(PAIRS)} pairs, 3 tasks in " in capsys.readouterr().out
    check(tmp_path, engine)
    folders = sorted(path.name for path in (tmp_path / "answers").glob("[!.]*"))
    assert folders == ["task=apart", "task=near", "task=size"]
    files = [*(tmp_path / "answers" / "task=apart").glob("[!.]*")]
    assert len(files) == -(-len(PAIRS) // 10)


def test_in_little_memory_the_store_is_read_more_often(
    run: Callable[..., int], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill_pairs, "BLOCK_PAIRS", 5)
    monkeypatch.setattr(backfill_pairs, "VECTOR_BYTES", 1)
    scans = []
    scan = FeatureStore.scan
    monkeypatch.setattr(
        FeatureStore, "scan", lambda self, **options: scans.append(1) or scan(self, **options)
    )
    assert run("--pairs", write_pairs(tmp_path / "pairs.tsv")) == 0
    assert len(scans) == -(-len(PAIRS) // 5)
    check(tmp_path, engine)


def test_it_goes_on_where_it_ended(
    run: Callable[..., int],
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(backfill_pairs, "BLOCK_PAIRS", 10)
    path = write_pairs(tmp_path / "pairs.tsv")
    assert run("--pairs", path, "--tasks", "apart") == 0
    folder = tmp_path / "answers" / "task=apart"
    written = {file.name: file.stat().st_mtime_ns for file in folder.glob("[!.]*")}
    lost = sorted(written)[1]
    (folder / lost).unlink()
    capsys.readouterr()
    assert run("--pairs", path, "--tasks", "apart") == 0
    rest = len(PAIRS) - 10
    assert f"10 pairs, 1 tasks in 0.0 s; {rest} pairs were answered before" in _out(capsys)
    again = {file.name: file.stat().st_mtime_ns for file in folder.glob("[!.]*")}
    assert {name for name in again if again[name] != written[name]} == {lost}
    assert run("--pairs", path) == 0
    check(tmp_path, engine)
    assert run("--pairs", path) == 0
    assert "0 pairs, 3 tasks" in _out(capsys)


def _out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.replace("0.1 s", "0.0 s")


def test_codes_that_were_replaced_are_answered_anew(
    run: Callable[..., int], engine: Engine, store: FeatureStore, tmp_path: Path
) -> None:
    path = write_pairs(tmp_path / "pairs.tsv")
    assert run("--pairs", path) == 0
    before = read(tmp_path, "size")["value"].to_numpy()
    with StoreWriter(store, existing="replace") as writer:
        writer.append(["text-1"], engine.encode(["Something else altogether"]))
    assert run("--pairs", path) == 0
    after = read(tmp_path, "size")["value"].to_numpy()
    has_it = np.array([1 in pair for pair in PAIRS])
    assert ((before != after) == has_it).all()


def test_other_pairs_want_another_output(
    run: Callable[..., int], engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--pairs", write_pairs(tmp_path / "pairs.tsv")) == 0
    assert run("--pairs", write_pairs(tmp_path / "others.tsv", PAIRS[:3])) == 1
    said = capsys.readouterr().err
    assert "has the answers of head" in said
    assert "of the file of pairs" in said
    check(tmp_path, engine)


def fails(run: Callable[..., int], capsys: pytest.CaptureFixture[str], *options: object) -> str:
    assert run(*options) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "pairs.tsv",
            "id_a\tid_b\ntext-0\ttext-1\ntext-0\ttext-9\n",
            "pairs.tsv: line 3 has the id 'text-9', which store",
        ),
        (
            "pairs.csv",
            'id_a,id_b\n"text-0",text-1\ntext-0,"text-9"\n',
            "pairs.csv: row 1 has the id 'text-9', which store",
        ),
        (
            "pairs.jsonl",
            '{"id_a": "text-1", "id_b": "text-2"}\n\n{"id_a": 9, "id_b": "text-2"}\n',
            "pairs.jsonl: line 3 has the id '9', which store",
        ),
        ("pairs.tsv", "id_a\tid_b\ntext-0\n", "pairs.tsv: line 2 has 1 columns, expected 2"),
        ("pairs.tsv", "a\tb\nx\ty\n", "got the columns ['a', 'b'], expected id_a and id_b, each"),
        ("pairs.tsv", "id_a\tid_a\nx\ty\n", "got the columns ['id_a', 'id_a'], expected id_a"),
        ("pairs.jsonl", '{"id_a": 1.5, "id_b": "x"}\n', "row 0 has 1.5 in column 'id_a', expected"),
        ("pairs.jsonl", '{"id_a": "text-1"}\n', "got the columns ['id_a'], expected id_a and id_b"),
        ("pairs.txt", "text-0\ttext-1\n", "plain lines have no columns"),
        ("pairs.abc", "", "its suffix says no format"),
        ("pairs.parquet", "no Parquet", "cannot be read"),
    ],
)
def test_pairs_that_are_wrong(
    run: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str,
    message: str,
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    said = fails(run, capsys, "--pairs", tmp_path / name)
    assert message in said
    assert f"--pairs {tmp_path / name}" in said
    assert "--input" not in said
    assert not [*tmp_path.glob("answers/task=*/*")]


def test_a_file_that_is_not_there(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fails(run, capsys, "--pairs", tmp_path / "none.tsv")
    assert f"--pairs {tmp_path / 'none.tsv'}: cannot be read" in said


def test_no_pairs_are_no_answers(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("--pairs", write_pairs(tmp_path / "pairs.tsv", [])) == 0
    assert not [*tmp_path.glob("answers/task=*/[!.]*")]


def test_whole_numbers_are_ids(
    run: Callable[..., int], engine: Engine, store: FeatureStore, tmp_path: Path
) -> None:
    with StoreWriter(store) as writer:
        writer.append(["7", "8"], engine.encode(TEXTS[:2]))
    pairs = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"id_a": [7, 8], "id_b": [8, 7]}), pairs)
    assert run("--pairs", pairs, "--tasks", "apart") == 0
    assert read(tmp_path, "apart")["id_a"].to_pylist() == ["7", "8"]


def test_a_stored_pair_is_no_text(
    run: Callable[..., int],
    engine: Engine,
    store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with StoreWriter(store) as writer:
        writer.append(["both"], engine.encode([(TEXTS[0], TEXTS[1])]))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("id_a\tid_b\ntext-0\tboth\n", encoding="utf-8")
    assert "id 'both': its text was encoded as a pair in store" in fails(
        run, capsys, "--pairs", pairs
    )


def test_which_heads_are_asked(
    run: Callable[..., int],
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = write_pairs(tmp_path / "pairs.tsv")
    said = fails(run, capsys, "--pairs", pairs, "--tasks", "apart", "tone")
    assert "task 'tone': its head reads texts of the form 'single', expected 'two_texts'" in said
    said = fails(run, capsys, "--tasks", "apart")
    assert "task 'apart': its head reads two texts that were encoded by themselves" in said
    assert "--pairs" in said
    assert "--quotes: is about a file of --pairs" in fails(run, capsys, "--quotes", "csv")
    said = fails(run, capsys, "--pairs", pairs, "--runner", "ray")
    assert "--runner ray: got it with --pairs" in said
    assert run() == 0
    assert [path.name for path in (tmp_path / "answers").glob("[!.]*")] == ["task=tone"]
    assert (
        "there are no answers of apart, near, size, which read two texts" in capsys.readouterr().err
    )
    for task in ("apart", "near", "size"):
        (bundle / "heads" / f"{task}.safetensors").unlink()
    assert "--pairs: none of the heads of bundle" in fails(run, capsys, "--pairs", pairs)


def test_all_probabilities(run: Callable[..., int], engine: Engine, tmp_path: Path) -> None:
    path: Any = write_pairs(tmp_path / "pairs.tsv")
    assert run("--pairs", path, "--tasks", "apart", "--probabilities") == 0
    rows = np.array(read(tmp_path, "apart")["probabilities"].to_pylist(), np.float32)
    wanted = engine.predict([(TEXTS[a], TEXTS[b]) for a, b in PAIRS], ["apart"])["apart"]
    assert np.array_equal(rows, wanted.probabilities)
