"""`bitheads backfill`: a row per text and task, whatever happened before."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from head_kinds import TEXTS, heads_of_every_kind
from random_heads import random_head
from store_cases import contents, make_features, make_ids

from bitheads import Engine, FeatureSpec, HeadError, InputError, PackedFeatures, StoreError
from bitheads.engine.commands.backfill import main
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.jobs.answers import NAME
from bitheads.engine.jobs.backfill import Backfill, fitting_heads, read_heads
from bitheads.engine.store import FeatureStore, Part, StoreWriter, compact, schema
from bitheads.engine.store.part_writer import PartWriter, new_name

TASKS = {"tone": 3, "topic": 7, "spam": 2}


@pytest.fixture
def bundle(own_bundle: Path) -> Path:
    """A bundle with heads of several numbers of labels."""
    spec = Engine.load(own_bundle, "onnxruntime").spec
    for seed, (task, classes) in enumerate(TASKS.items()):
        head = random_head(spec, task=task, classes=classes, seed=seed)
        write_head(head, own_bundle / "heads" / f"{task}.safetensors")
    return own_bundle


@pytest.fixture
def store(bundle: Path, tmp_path: Path) -> FeatureStore:
    """Three parts of several row groups, and one that is empty."""
    spec = Engine.load(bundle, "onnxruntime").spec
    store = FeatureStore(tmp_path / "store", spec)
    with StoreWriter(store, row_group_bytes=900) as writer:
        for part in range(3):
            writer.append(make_ids(50, 50 * part), make_features(spec, 50, seed=part))
            writer.flush()
    assert store.schema is not None
    assert store.id is not None
    PartWriter(store.folder, new_name(3), store.schema, store.id).publish()
    store.refresh()
    return store


@pytest.fixture
def run(bundle: Path, store: FeatureStore, tmp_path: Path) -> Callable[..., int]:
    def call(*options: object) -> int:
        fixed = ["--bundle", bundle, "--store", store.folder, "--output", tmp_path / "answers"]
        return main([str(option) for option in (*fixed, *options)])

    return call


def read(folder: Path, task: str) -> pa.Table:
    return ds.dataset(folder / "answers" / f"task={task}").to_table().sort_by("id")


def check(tmp_path: Path, bundle: Path, store: FeatureStore, tasks: list[str]) -> None:
    """Each answer is what the engine says of the text's codes, and there is one a text."""
    store.refresh()
    engine = Engine.load(bundle, "onnxruntime")
    scanned = list(store.scan())
    features = PackedFeatures.concat([rows.features for rows in scanned])
    names = [name for rows in scanned for name in rows.ids.to_pylist()]
    order = np.argsort(names)
    for task in tasks:
        table = read(tmp_path, task)
        expected = engine.predict_features(features, [task])[task]
        assert table["id"].to_pylist() == sorted(names)
        assert table["label"].to_pylist() == [expected.top[i] for i in order]
        likeliest = expected.probabilities.max(axis=1)[order]
        assert table["probability"].to_numpy().tolist() == likeliest.tolist()


def test_several_tasks_in_one_scan(
    run: Callable[..., int], bundle: Path, store: FeatureStore, tmp_path: Path, capsys: object
) -> None:
    assert run("--threads", 2) == 0
    check(tmp_path, bundle, store, list(TASKS))
    assert sorted(path.name for path in (tmp_path / "answers").glob("[!.]*")) == [
        f"task={task}" for task in sorted(TASKS)
    ]


def test_all_probabilities(
    run: Callable[..., int], bundle: Path, store: FeatureStore, tmp_path: Path
) -> None:
    assert run("--tasks", "topic", "--probabilities") == 0
    check(tmp_path, bundle, store, ["topic"])
    rows = read(tmp_path, "topic")["probabilities"].to_pylist()
    assert np.allclose([sum(row) for row in rows], 1, atol=1e-6)
    likeliest = read(tmp_path, "topic")["probability"].to_pylist()
    assert [max(row) for row in rows] == likeliest


def test_others_read_the_answers(run: Callable[..., int], tmp_path: Path) -> None:
    import duckdb
    import polars

    assert run() == 0
    answers = tmp_path / "answers"
    query = f"SELECT task, count(*), count(DISTINCT id) FROM '{answers}/*/*.parquet' GROUP BY task"
    assert sorted(duckdb.sql(query).fetchall()) == [(task, 150, 150) for task in sorted(TASKS)]
    frame = polars.scan_parquet(answers / "*/*.parquet", hive_partitioning=True).collect()
    assert frame.height == 450
    assert set(frame["task"]) == set(TASKS)


def test_a_rerun_does_what_is_left(
    run: Callable[..., int],
    bundle: Path,
    store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--tasks", "tone") == 0
    assert "150 texts, 1 tasks" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("answers/*/*")}
    assert run("--tasks", "tone") == 0
    assert "0 texts, 1 tasks" in capsys.readouterr().out
    with StoreWriter(store) as writer:
        writer.append(make_ids(9, 500), make_features(store.spec, 9))
    next(iter(sorted(files))).unlink()
    assert run("--tasks", "tone", "spam", "--progress") == 0
    assert "159 texts, 2 tasks" in capsys.readouterr().out
    unchanged = [path for path, time in files.items() if path.stat().st_mtime_ns == time]
    assert len(unchanged) == 2
    check(tmp_path, bundle, store, ["tone", "spam"])


def test_parts_that_changed_or_are_gone(
    run: Callable[..., int], bundle: Path, store: FeatureStore, tmp_path: Path
) -> None:
    assert run("--tasks", "tone") == 0
    with StoreWriter(store, "replace") as writer:
        writer.append(make_ids(2, 60), make_features(store.spec, 2, seed=77))
    assert run("--tasks", "tone") == 0
    check(tmp_path, bundle, store, ["tone"])
    compact(store)
    assert len(store.parts) == 1
    assert run("--tasks", "tone") == 0
    check(tmp_path, bundle, store, ["tone"])
    left = tmp_path / "answers" / "task=tone" / ".part-00000000-a.parquet.1-2.partial"
    of_pairs = left.with_name(".pairs-00000000.parquet.1-2.partial")
    others = left.with_name(".a.partial")
    for path in (left, of_pairs, others):
        path.touch()
    assert run("--tasks", "tone") == 0
    assert not left.exists()
    assert not of_pairs.exists()
    assert others.exists()


def test_answers_of_another_store_are_kept(
    run: Callable[..., int],
    bundle: Path,
    store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = FeatureStore(tmp_path / "other", store.spec)
    with StoreWriter(other) as writer:
        writer.append(make_ids(5), make_features(store.spec, 5))
    assert run("--tasks", "tone") == 0
    assert run("--tasks", "tone", "--store", other.folder) == 1
    assert "has the answers of another store" in capsys.readouterr().err
    # Whatever is done to a store, it is the same one.
    with StoreWriter(store, "replace") as writer:
        writer.append(make_ids(3, 149), make_features(store.spec, 3))
    compact(store)
    with StoreWriter(store) as writer:
        writer.append(["more"], make_features(store.spec, 1))
    assert run("--tasks", "tone") == 0
    check(tmp_path, bundle, store, ["tone"])


def test_a_store_of_before_there_were_store_ids(
    bundle: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Part, "store_id", None)
    job = Backfill(store, read_heads(bundle, ["tone"]), tmp_path / "answers")
    assert job.run(job.prepare()) == 150
    monkeypatch.undo()
    compact(store)
    assert job.run(job.prepare()) == 150
    check(tmp_path, bundle, store, ["tone"])


def test_two_heads_for_one_task(bundle: Path) -> None:
    heads = bundle / "heads"
    (heads / "copy.safetensors").write_bytes((heads / "tone.safetensors").read_bytes())
    with pytest.raises(HeadError, match="is a head for task 'tone', as another"):
        read_heads(bundle, None)
    assert [head.head.task for head in read_heads(bundle, ["tone", "spam"])] == ["tone", "spam"]


def test_more_tasks_than_files_may_be_open(
    bundle: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = read_heads(bundle, None)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (66, 66))
    with pytest.raises(InputError, match=r"got 3, .* at most 2 .*ulimit -n"):
        Backfill(store, heads, tmp_path / "answers")
    Backfill(store, heads[:2], tmp_path / "answers")


def test_answers_of_another_head_or_kind(
    run: Callable[..., int],
    bundle: Path,
    store: FeatureStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--tasks", "tone", "spam") == 0
    capsys.readouterr()
    assert run("--tasks", "tone", "--probabilities") == 1
    assert "with all probabilities. Choose another output" in capsys.readouterr().err
    head = random_head(store.spec, task="tone", seed=50)
    write_head(head, bundle / "heads" / "tone.safetensors", force=True)
    assert run("--tasks", "tone") == 1
    assert "task=tone/part-" in capsys.readouterr().err
    assert run("--tasks", "spam") == 0


@pytest.mark.parametrize("with_all", [False, True])
def test_columns_of_every_kind(
    run: Callable[..., int], bundle: Path, store: FeatureStore, tmp_path: Path, with_all: bool
) -> None:
    """Those of one label are as they were before there were kinds: their old outputs go on. The
    store has no words, so there is nothing of heads of words."""
    with Engine.load(bundle, "onnxruntime") as engine:
        for head in heads_of_every_kind(engine, TEXTS):
            write_head(head, bundle / "heads" / f"{head.task}.safetensors")
    assert run(*["--probabilities"] * with_all) == 0
    refusing = {
        "never": "",
        "abstains": " accepted:bool",
        "rejects": " accepted:bool out_of_domain:float",
        "both": " accepted:bool out_of_domain:float",
    }
    kinds = {
        "single_label": "id:string label:string probability:float",
        "multi_label": "id:string labels:list<element: string>",
        "ordinal": "id:string label:string probability:float value:double",
        "regression": "id:string value:double",
    }
    found = {folder.name.removeprefix("task=") for folder in (tmp_path / "answers").glob("task=*")}
    assert {task for task in found if task.endswith("-single")} == {
        f"{kind}-{refuses}-single"
        for kind in kinds
        for refuses in refusing
        if kind in ("single_label", "ordinal") or refuses in ("never", "rejects")
    }
    for task in found:
        kind, refuses = task.split("-")[:2] if "-" in task else ("single_label", "never")
        likely = " probabilities:list<element: float>"
        wanted = kinds[kind] + refusing[refuses] + likely * (with_all and kind != "regression")
        wanted += "".join(f" {name}:{NAME}" for name in ("task", "head"))
        for path in (tmp_path / "answers" / f"task={task}").glob("*.parquet"):
            schema = pq.read_schema(path)
            assert " ".join(f"{field.name}:{field.type}" for field in schema) == wanted
            assert not any(field.nullable for field in schema)
            meta = json.loads(schema.metadata[b"bitheads"])
            keys = ["task", "labels", "head_sha256", "spec_id", "probabilities"]
            assert [*meta] == keys
            file = pq.ParquetFile(path)
            group = file.metadata.row_group(0)
            packed = {
                group.column(i).path_in_schema
                for i in range(group.num_columns)
                if group.column(i).has_dictionary_page
            }
            assert packed == {"label", "labels.list.element", "task", "head"} & {
                group.column(i).path_in_schema for i in range(group.num_columns)
            }


def test_errors(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["--tasks", "tnoe"], "task 'tnoe': bundle"),
        (["--threads", 0], "--threads: got 0"),
        (["--store", tmp_path / "absent"], "no parts of a feature store"),
        (["--bundle", tmp_path], "no bundle.json"),
    ):
        assert run(*options) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("error: ")
        assert message in shown


def test_a_damaged_part_gives_no_answers_of_it(
    run: Callable[..., int], store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = sorted(Path(str(store.folder)).glob("*.parquet"))[1]
    content = part.read_bytes()
    part.write_bytes(content[:2000] + b"x" + content[2001:])
    assert run("--tasks", "tone") == 1
    assert f"{part.name}: was changed after it was written" in capsys.readouterr().err
    assert len(list(tmp_path.glob("answers/task=tone/*"))) == 1
    part.write_bytes(content)
    assert run("--tasks", "tone") == 0
    assert len(read(tmp_path, "tone")) == 150


def test_float16_codes(tmp_path: Path) -> None:
    spec = FeatureSpec.from_json({**_json(), "quantization": "float16"})
    store = FeatureStore(tmp_path / "store", spec)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, spec.dim)).astype(np.float16)
    features = PackedFeatures(values.view(np.uint8), np.arange(0, 41, 2), spec)
    with StoreWriter(store) as writer:
        writer.append(make_ids(20), features)
    from bitheads.engine.heads.cpu import load_head, predict_heads
    from bitheads.engine.jobs.answers import TaskHead

    head = load_head(random_head(spec, task="tone"))
    job = Backfill(store, [TaskHead(head, "0")], tmp_path / "answers")
    assert job.run(job.prepare()) == 20
    labels = ds.dataset(tmp_path / "answers").to_table()["label"].to_pylist()
    assert labels == list(predict_heads(features, [head])["tone"].top)


def _json() -> dict[str, object]:
    from store_cases import make_spec

    return make_spec().to_json()


def test_one_run_at_a_time(bundle: Path, store: FeatureStore, tmp_path: Path) -> None:
    job = Backfill(store, read_heads(bundle, ["tone"]), tmp_path / "answers")
    with job.lock(), pytest.raises(StoreError, match="another process is writing"), job.lock():
        raise AssertionError
    assert len(contents(store)) == 150


@pytest.fixture
def bundle_with_a_pair_head(bundle: Path) -> Path:
    spec = Engine.load(bundle, "onnxruntime").spec
    head = random_head(spec, task="same", form="pair", seed=9)
    write_head(head, bundle / "heads" / "same.safetensors")
    return bundle


def schema_of_version_1(
    spec: FeatureSpec, columns: Sequence[pa.Field] = (), words: bool = False
) -> pa.Schema:
    content = {"format_version": 1, "spec_id": spec.id, "spec": spec.to_json()}
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("num_tokens", pa.int32(), nullable=False),
            pa.field("codes", pa.large_binary(), nullable=False),
            *columns,
        ],
        metadata={b"bitheads": json.dumps(content)},
    )


@pytest.mark.parametrize("older", [False, True], ids=["says forms", "older version"])
def test_rows_are_answered_by_heads_of_their_form(
    bundle_with_a_pair_head: Path,
    tmp_path: Path,
    older: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A store of an older version does not say what was a pair, also after rows are added."""
    if older:
        monkeypatch.setattr(schema, "make_schema", schema_of_version_1)
    bundle, path = bundle_with_a_pair_head, tmp_path / "store"
    with Engine.load(bundle, "onnxruntime") as engine:
        texts = ["One text.", ("One text", "and another."), "A third."]
        with StoreWriter(FeatureStore(path, engine.spec)) as writer:
            writer.append(["a"], engine.encode(texts[:1]))
        monkeypatch.undo()
        with StoreWriter(FeatureStore(path)) as writer:
            writer.append(["b", "c"], engine.encode(texts[1:]))
        compact(FeatureStore(path))
        store = FeatureStore(path)
        assert ("is_pair" in ds.dataset(path).to_table().column_names) != older
        assert store.forms == (None if older else {"single", "pair"})
        heads = fitting_heads(read_heads(bundle, None), store)
        Backfill(store, heads, tmp_path / "answers").run(store.parts)
        expected = engine.predict(texts)
    again = ["--bundle", bundle, "--store", path, "--output", tmp_path / "answers"]
    assert main([*map(str, again)]) == 0
    assert ("does not say which of its texts are pairs" in capsys.readouterr().err) == older
    for task, ids in (("tone", ["a", "c"]), ("same", ["b"])):
        table = read(tmp_path, task)
        assert table["id"].to_pylist() == (["a", "b", "c"] if older else ids)
        rows = dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
        tops = dict(zip("abc", expected[task].top, strict=True))
        assert {row: rows[row] for row in ids} == {row: tops[row] for row in ids}


def test_a_task_that_is_for_no_text_of_the_store(
    bundle_with_a_pair_head: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, path = bundle_with_a_pair_head, tmp_path / "store"
    with (
        Engine.load(bundle, "onnxruntime") as engine,
        StoreWriter(FeatureStore(path, engine.spec)) as writer,
    ):
        writer.append(["a"], engine.encode(["One text."]))
    options = ["--bundle", bundle, "--store", path, "--output", tmp_path / "answers"]
    assert main([*map(str, options), "--tasks", "tone", "same"]) == 1
    error = capsys.readouterr().err
    assert "task 'same': its head is for texts of the form 'pair'" in error
    assert not (tmp_path / "answers" / "task=same").exists()
    assert main([*map(str, options)]) == 0  # all heads that are for such texts
    assert {path.name for path in (tmp_path / "answers").glob("task=*")} == {
        "task=tone",
        "task=topic",
        "task=spam",
    }


FORKING = """
import os, sys
from pathlib import Path
from bitheads.engine.jobs.backfill import Backfill, read_heads
from bitheads.engine.errors import ForkedError
from bitheads.engine.store import FeatureStore

bundle, store, output = sys.argv[1:]
heads = read_heads(Path(bundle), None)
job = Backfill(FeatureStore(store), heads, output)
parent, children = os.getpid(), []


class Bar:
    def update(self, rows):
        if os.getpid() == parent and len(children) < 3:
            children.append(os.fork())


try:
    job.run(job.prepare(), 1, Bar())
except ForkedError:
    os._exit(7)
assert os.getpid() == parent
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_a_child_forked_meanwhile_ends_and_leaves_the_answers_alone(
    bundle: Path, store: FeatureStore, tmp_path: Path
) -> None:
    """It has neither the threads nor the right to the files that were begun."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, bundle, str(store.folder), tmp_path / "answers"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[7, 7, 7]\n"), done.stderr
    check(tmp_path, bundle, store, list(TASKS))
