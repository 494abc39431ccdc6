"""Texts that are deleted: from all parts and answers, to the last byte, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from random_heads import random_head, random_two_texts_head
from store_cases import contents, expected, fill, make_features, make_spec

from bitheads import InputError, StoreError
from bitheads.engine.commands.store import main
from bitheads.engine.heads.cpu import load_head
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill
from bitheads.engine.jobs.ids_file import read_ids
from bitheads.engine.store import FeatureStore, StoreWriter, compact, delete, verify

GONE = ["text-3", "text-25", "text-26"]


def backfill(
    store: FeatureStore, output: object, tasks: tuple[str, ...] = ("tone", "topic")
) -> int:
    heads = [TaskHead(load_head(random_head(store.spec, task=task)), task) for task in tasks]
    job = Backfill(store, heads, str(output))
    return job.run(job.prepare())


def answered(output: Path, task: str) -> dict[str, Any]:
    rows = ds.dataset(output / f"task={task}").to_table().to_pylist()
    return {row["id"]: row for row in rows}


def has_bytes(folder: Path, sought: bytes) -> bool:
    return any(sought in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_codes_and_answers_of_all_tasks_go_and_others_stay(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    seals = [part.seal for part in store.parts]
    backfill(store, tmp_path / "answers")
    before = {task: answered(tmp_path / "answers", task) for task in ("tone", "topic")}
    done = delete(store, [*GONE, "never", "text-3"], [tmp_path / "answers"])
    assert (done.asked, done.rows, done.absent) == (4, 3, ["never"])
    assert [(part.part, part.rows, part.removed) for part in done.parts] == [
        (store.parts[0].name, 1, False),
        (store.parts[1].name, 2, False),
    ]
    assert [(one.task, one.rows, len(one.files)) for one in done.answers] == [
        ("tone", 3, 2),
        ("topic", 3, 2),
    ]
    left = {name: codes for name, codes in expected().items() if name not in GONE}
    assert contents(FeatureStore(tmp_path / "store")) == contents(store) == left
    assert store.parts[2].seal == seals[2]
    assert verify(tmp_path / "store") == []
    for task, rows in before.items():
        kept = {name: row for name, row in rows.items() if name not in GONE}
        assert answered(tmp_path / "answers", task) == kept
    # Other texts' answers are still theirs.
    assert backfill(store, tmp_path / "answers") == 0
    again = delete(store, GONE, [tmp_path / "answers"])
    assert (again.rows, again.parts, again.absent) == (0, [], GONE)
    assert [one.rows for one in again.answers] == [0, 0]


def test_no_byte_is_left(tmp_path: Path) -> None:
    """Nor in parts that were replaced, nor in what killed runs left aside."""
    store = fill(tmp_path / "store", parts=1)
    spec = make_spec()
    secret = make_features(spec, 1, seed=77, most_tokens=40)
    with StoreWriter(store) as writer:
        writer.append(["who-must-go"], secret)
    backfill(store, tmp_path / "answers")
    codes = secret.codes.tobytes()
    store.refresh()
    (part,) = [part for part in store.parts if part.rows == 1]
    whole = (tmp_path / "store" / part.name).read_bytes()
    (tmp_path / "store" / ".part-00000001-0.parquet.1-2.partial").write_bytes(whole)
    for path in (tmp_path / "answers").rglob("part-*"):
        for name in (path.name, "pairs-00000000.parquet"):
            path.with_name(f".{name}.1-2.partial").write_bytes(path.read_bytes())
    compact(store)  # and its parts come back, as a crash may bring them
    (tmp_path / "store" / part.name).write_bytes(whole)
    assert has_bytes(tmp_path, codes)
    assert has_bytes(tmp_path, b"who-must-go")
    delete(store, ["who-must-go"], [tmp_path / "answers"])
    assert not has_bytes(tmp_path, codes)
    assert not has_bytes(tmp_path, b"who-must-go")
    assert contents(store) == expected(1)


def test_all_texts_of_a_part_and_of_a_store(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    store_id, names = store.id, list(expected())
    backfill(store, tmp_path / "answers")
    done = delete(store, names[:20], [tmp_path / "answers"])
    assert [part.removed for part in done.parts] == [True]
    assert len(store.parts) == 2
    done = delete(store, names, [tmp_path / "answers"])
    assert [part.removed for part in done.parts] == [True, False]
    assert (len(store), store.id, store.spec) == (0, store_id, make_spec())
    assert not list((tmp_path / "answers").rglob("*.parquet"))
    assert verify(tmp_path / "store") == []
    with StoreWriter(FeatureStore(tmp_path / "store")) as writer:
        writer.append(["new"], make_features(make_spec(), 1))
    store.refresh()
    assert (len(store), store.id) == (1, store_id)
    assert backfill(store, tmp_path / "answers") == 1


def test_pairs_with_one_of_the_texts(tmp_path: Path) -> None:
    from bitheads.engine.jobs.backfill_pairs import PairsBackfill
    from bitheads.engine.jobs.pairs_file import PairsFile

    store = fill(tmp_path / "store")
    file = tmp_path / "pairs.tsv"
    file.write_text("id_a\tid_b\ntext-1\ttext-2\ntext-3\ttext-4\ntext-5\ttext-3\n")
    head = TaskHead(load_head(random_two_texts_head(store.spec, "alike")), "0")
    job = PairsBackfill(store, [head], PairsFile(file), tmp_path / "answers")
    job.run(job.prepare())
    (one,) = delete(store, ["text-3"], [tmp_path / "answers"]).answers
    assert (one.task, one.rows) == ("alike", 2)
    table = ds.dataset(tmp_path / "answers" / "task=alike").to_table()
    assert table["id_a"].to_pylist() == ["text-1"]
    assert not has_bytes(tmp_path / "answers", b"text-3")


def test_outputs_that_are_not_of_this_store(tmp_path: Path) -> None:
    store, other = fill(tmp_path / "store"), fill(tmp_path / "other")
    backfill(other, tmp_path / "answers")
    (tmp_path / "none").mkdir()
    with pytest.raises(StoreError, match="answers of another store"):
        delete(store, GONE, [tmp_path / "answers"])
    with pytest.raises(StoreError, match="holds no answers"):
        delete(store, GONE, [tmp_path / "none"])
    folder = tmp_path / "parts" / "task=x"
    fill(folder, parts=1)
    with pytest.raises(StoreError, match="holds no answers"):
        delete(store, GONE, [tmp_path / "parts"])
    assert contents(FeatureStore(tmp_path / "store")) == expected()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    with StoreWriter(store), pytest.raises(StoreError, match="another process is writing"):
        delete(FeatureStore(tmp_path / "store"), GONE)


@pytest.mark.parametrize("ids", [[1], ["1", 1], "text-3", [None]])
def test_ids_that_are_no_strings(tmp_path: Path, ids: Any) -> None:
    with pytest.raises(InputError, match="ids: got "):
        delete(fill(tmp_path), ids)


def test_a_filesystem_of_fsspec(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    try:
        store = fill("memory://deleted/store")  # type: ignore[arg-type]
        backfill(store, "memory://deleted/answers")
        done = delete(store, GONE, ["memory://deleted/answers"])
        assert (done.rows, [one.rows for one in done.answers]) == (3, [3, 3])
        assert set(contents(store)) == set(expected()) - set(GONE)
        assert backfill(store, "memory://deleted/answers") == 0
        for path in memory.find("/deleted"):
            assert b"text-25" not in memory.cat(path)
    finally:
        memory.rm("/deleted", recursive=True)


@pytest.mark.parametrize("name", ["ids.txt", "ids.csv", "ids.jsonl", "ids.parquet"])
def test_the_command(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "store")
    path = tmp_path / name
    if name.endswith("txt"):
        path.write_text("text-3\n\ntext-25\r\ntext-99\ntext-3\n")
    elif name.endswith("csv"):
        path.write_text('why,id\nasked,text-3\nasked,"text-25"\n,text-99\n')
    elif name.endswith("jsonl"):
        path.write_text("".join(json.dumps({"id": f"text-{i}"}) + "\n" for i in (3, 25, 99)))
    else:
        pq.write_table(pa.table({"id": ["text-3", "text-25", "text-99"]}), path)
    command = ["delete", "--store", str(tmp_path / "store"), "--ids", str(path)]
    report = tmp_path / "report.json"
    assert main([*command, "--report", str(report)]) == 0
    shown = capsys.readouterr()
    assert "deleted 2 texts from 2 parts" in shown.out
    assert "1 ids were not there" in shown.out
    assert "name them with --answers" in shown.err
    found = json.loads(report.read_text())
    assert (found["rows"], found["absent"], len(found["parts"])) == (2, ["text-99"], 2)
    assert main([*command, "--report", str(report)]) == 1
    assert "say --force" in capsys.readouterr().err
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["rows"], again["absent"]) == (0, ["text-3", "text-25", "text-99"])


def test_one_and_the_text_of_it_are_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}\n{"id": 1}\n')
    assert read_ids(path) == ["1", "2"]
    path.write_text('{"id": 1}\n{"id": "1"}\n')
    with pytest.raises(InputError, match="the whole number 1 and the text '1'"):
        read_ids(path)
    path.write_text('{"id": 1.5}\n')
    with pytest.raises(InputError, match=r"--ids .*: row 0 has 1.5 in column 'id'"):
        read_ids(path)
    path.write_text('{"key": "a"}\n')
    with pytest.raises(InputError, match=r"expected 'id' once.*--id-column"):
        read_ids(path)
    assert read_ids(path, "key") == ["a"]
    path.write_text("\n")
    with pytest.raises(InputError, match="has no ids"):
        read_ids(path)
