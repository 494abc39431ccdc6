"""Answers say whose they are; a task's heads replace each other, or stand beside each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from random_heads import random_head, random_span_head, random_two_texts_head
from store_cases import fill, make_features, make_ids

from bitheads.engine import bundle
from bitheads.engine.commands.backfill import main
from bitheads.engine.heads.cpu import HeadThreads, load_head
from bitheads.engine.heads.head_file import read_head
from bitheads.engine.store import FeatureStore, StoreWriter, compact, delete, sealed
from bitheads.engine.store.answer_folders import head_name


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return fill(tmp_path / "store")


@pytest.fixture
def run(store: FeatureStore, tmp_path: Path) -> Callable[..., int]:
    """Answers with these files of heads, and no bundle."""

    def call(*options: object) -> int:
        fixed = ["--store", store.folder, "--output", tmp_path / "answers"]
        return main([str(option) for option in (*fixed, *options)])

    return call


@pytest.fixture
def heads(store: FeatureStore, tmp_path: Path) -> dict[str, Path]:
    """Two heads of one task, and one of another."""
    spec = store.spec
    made = {
        "old": random_head(spec, "topic", seed=1),
        "new": random_head(spec, "topic", seed=2),
        "tone": random_head(spec, "tone", seed=3),
    }
    return {name: head.save(tmp_path / f"{name}.safetensors") for name, head in made.items()}


def name_of(path: Path) -> str:
    return head_name(bundle.Artifact.of(path).sha256)


def answers_of(store: FeatureStore, path: Path) -> dict[str, str]:
    """Id -> label, as the head says it of the store's codes."""
    head = load_head(read_head(path))
    store.refresh()
    found = {}
    with HeadThreads(1) as threads:
        for rows in store.scan():
            prediction = threads.predict(rows.features, [head])[head.task]
            found |= dict(zip(rows.ids.to_pylist(), prediction.top, strict=True))
    return found


def in_files(folder: Path) -> dict[str, str]:
    table = ds.dataset(folder).to_table()
    found = dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert len(found) == len(table)
    return found


def test_every_reader_sees_task_and_head(
    run: Callable[..., int], heads: dict[str, Path], tmp_path: Path
) -> None:
    """Whatever it makes of the folders' names."""
    assert run("--head", heads["old"], heads["tone"]) == 0
    answers = tmp_path / "answers"
    assert run("--output", tmp_path / "both", "--head", heads["old"], "--other-heads", "keep") == 0
    assert run("--output", tmp_path / "both", "--head", heads["new"], "--other-heads", "keep") == 0
    cases = {
        answers: {("topic", name_of(heads["old"])), ("tone", name_of(heads["tone"]))},
        tmp_path / "both": {("topic", name_of(heads[name])) for name in ("old", "new")},
    }
    for folder, wanted in cases.items():
        for option in ("", ", hive_partitioning = true", ", hive_partitioning = false"):
            source = f"read_parquet('{folder}/**/*.parquet'{option})"
            query = f"SELECT task, head, count(*) FROM {source} GROUP BY ALL"
            assert {(*row,) for row in duckdb.sql(query).fetchall()} == {
                (*pair, 60) for pair in wanted
            }
        frames = [pandas.read_parquet(folder), pq.read_table(folder).to_pandas()]
        frames.append(ds.dataset(folder).to_table().to_pandas())
        hive = ds.HivePartitioning.discover(infer_dictionary=True)
        frames.append(ds.dataset(folder, partitioning=hive).to_table().to_pandas())
        for hive_partitioning in (None, True, False):
            lazy = polars.scan_parquet(folder, hive_partitioning=hive_partitioning)
            frames.append(lazy.collect().to_pandas())
        for frame in frames:
            assert len(frame) == 120
            assert set(zip(frame["task"], frame["head"], strict=True)) == wanted
        # Of one file alone, which has left its folder, too.
        one = next(folder.rglob("*.parquet")).rename(tmp_path / f"{folder.name}.parquet")
        assert set(pandas.read_parquet(one)["task"]) <= {task for task, _ in wanted}


def test_another_head_is_refused_or_replaces(
    run: Callable[..., int],
    heads: dict[str, Path],
    store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--head", heads["old"], heads["tone"]) == 0
    capsys.readouterr()
    folder = tmp_path / "answers" / "task=topic"
    assert run("--head", heads["new"]) == 1
    said = capsys.readouterr().err
    assert f"of head {name_of(heads['old'])}" in said
    assert f"expected head {name_of(heads['new'])}" in said
    assert "--other-heads replace" in said
    assert in_files(folder) == answers_of(store, heads["old"])
    # As far as a run came that was killed: of each file there are the old answers, or the new.
    first = sorted(folder.glob("*.parquet"))[0]
    before = first.read_bytes()
    assert run("--head", heads["new"], "--other-heads", "replace") == 0
    assert "60 texts, 1 tasks" in capsys.readouterr().out
    first.write_bytes(before)
    assert run("--head", heads["new"]) == 1
    capsys.readouterr()
    assert run("--head", heads["new"], "--other-heads", "replace") == 0
    assert "20 texts, 1 tasks" in capsys.readouterr().out
    assert in_files(folder) == answers_of(store, heads["new"])
    assert set(pq.read_table(folder)["head"].to_pylist()) == {name_of(heads["new"])}
    assert in_files(folder.with_name("task=tone")) == answers_of(store, heads["tone"])
    # Nothing is left to do, whichever way it is asked for.
    assert run("--head", heads["new"]) == 0
    assert "0 texts, 1 tasks" in capsys.readouterr().out


def test_heads_beside_each_other(
    run: Callable[..., int],
    heads: dict[str, Path],
    store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are resumed, deleted from and made again each by itself."""
    folders = {}
    for name in ("old", "new"):
        assert run("--head", heads[name], "--other-heads", "keep") == 0
        folders[name] = tmp_path / "answers" / "task=topic" / f"head={name_of(heads[name])}"

    def check(texts: int) -> None:
        for name, folder in folders.items():
            assert in_files(folder) == answers_of(store, heads[name])
            assert len(in_files(folder)) == texts

    check(60)
    next(folders["old"].glob("*.parquet")).unlink()
    capsys.readouterr()
    assert run("--head", heads["new"], "--other-heads", "keep") == 0
    assert "0 texts" in capsys.readouterr().out
    assert run("--head", heads["old"], "--other-heads", "keep") == 0
    assert "20 texts" in capsys.readouterr().out
    check(60)

    done = delete(store, ["text-3", "text-25"], [tmp_path / "answers"])
    assert {(one.task, one.head, one.rows) for one in done.answers} == {
        ("topic", name_of(heads[name]), 2) for name in ("old", "new")
    }
    check(58)
    compact(store)
    with StoreWriter(store) as writer:
        writer.append(make_ids(5, 500), make_features(store.spec, 5))
    for name in ("old", "new"):
        assert run("--head", heads[name], "--other-heads", "keep") == 0
    check(63)

    for option in ("refuse", "replace"):
        assert run("--head", heads["new"], "--other-heads", option) == 1
        assert "with --other-heads keep" in capsys.readouterr().err
    check(63)


def test_one_layout_in_an_output(
    run: Callable[..., int], heads: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--head", heads["tone"]) == 0
    assert run("--head", heads["new"], "--other-heads", "keep") == 1
    assert "has answers of one head per task" in capsys.readouterr().err


def test_heads_of_files_are_checked(
    run: Callable[..., int],
    heads: dict[str, Path],
    store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a bundle's are, and named ones must fit."""
    assert run("--head", heads["old"], heads["new"]) == 1
    assert "is a head for task 'topic', as another" in capsys.readouterr().err
    assert run("--head", heads["old"], "--tasks", "topic") == 1
    assert "--tasks: got it with --head" in capsys.readouterr().err
    other = fill(tmp_path / "other", dim=128)
    foreign = random_head(other.spec, "topic").save(tmp_path / "foreign.safetensors")
    assert run("--head", foreign) == 1
    assert "head 'topic'" in capsys.readouterr().err
    spans = random_span_head(store.spec).save(tmp_path / "spans.safetensors")
    assert run("--head", spans) == 1
    assert "for which it reads words" in capsys.readouterr().err
    heads["tone"].write_bytes(heads["tone"].read_bytes()[:-1])
    assert run("--head", heads["tone"]) == 1
    assert "tone.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "answers").exists()


def test_pairs_have_heads_beside_each_other_too(
    run: Callable[..., int], store: FeatureStore, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.tsv"
    rows = [("id_a", "id_b"), ("text-1", "text-2"), ("text-30", "text-1")]
    pairs.write_text("".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8")
    names = []
    for seed in (1, 2):
        head = random_two_texts_head(store.spec, "alike", seed=seed)
        path = head.save(tmp_path / f"{seed}.safetensors")
        names.append(name_of(path))
        assert run("--head", path, "--pairs", pairs, "--other-heads", "keep") == 0
    table = pq.read_table(tmp_path / "answers")
    assert sorted(table["head"].to_pylist()) == sorted(2 * names)
    assert set(table["task"].to_pylist()) == {"alike"}


def test_answers_of_before_there_were_these_columns(
    run: Callable[..., int],
    heads: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are made anew when their task is asked for, file by file."""
    assert run("--head", heads["old"]) == 0
    paths = sorted((tmp_path / "answers" / "task=topic").glob("*.parquet"))
    now = [path.read_bytes() for path in paths]
    for path in paths[1:]:
        with pa.OSFile(str(path)) as file:
            said = dict(sealed.read_footer(file, str(path)).part)
        table = pq.read_table(path, partitioning=None).drop_columns(["task", "head"])
        del said["answers_version"], said["form"]
        with path.open("wb") as out:
            writer = sealed.SealedWriter(out, table.schema)
            writer.write(table)
            writer.close(said)
    capsys.readouterr()
    assert run("--head", heads["old"]) == 0
    assert "40 texts, 1 tasks" in capsys.readouterr().out
    assert [path.read_bytes() for path in paths] == now
