"""Full disks, folders that may not be written to, and processes that are killed."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from random_heads import random_head
from store_cases import contents, expected, fill, make_features, make_ids, make_spec

from bitheads import Engine, StoreError
from bitheads.engine.heads.cpu import load_head
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.jobs import answers
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill
from bitheads.engine.store import FeatureStore, StoreWriter, compact, verify

KILLS = os.environ.get("STORE_KILLS", "6")


def in_child(run: Callable[[], None]) -> str:
    """What `run` raised as StoreError, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        gc.disable()  # collecting an engine of other tests waits for threads that are not here
        try:
            run()
            message = "nothing was raised"
        except StoreError as error:
            message = str(error)
        except BaseException as error:
            message = f"not a StoreError: {error!r}"
        os.write(writing, message.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    return message


def limit_files(size: int) -> None:
    """No file may grow beyond: what is written past that fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def visible(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_full_disk_while_appending(tmp_path: Path, size: int) -> None:
    fill(tmp_path)
    before = visible(tmp_path)

    def append() -> None:
        store = FeatureStore(tmp_path)
        limit_files(size)
        with StoreWriter(store, row_group_bytes=500) as writer:
            writer.append(make_ids(50, 100), make_features(make_spec(), 50))

    message = in_child(append)
    assert "cannot be written" in message
    assert "make room, and run the same command again" in message
    assert visible(tmp_path) == before
    assert contents(FeatureStore(tmp_path)) == expected()


def test_a_full_disk_while_replacing_or_merging(tmp_path: Path) -> None:
    fill(tmp_path)
    before = visible(tmp_path)

    def replace() -> None:
        store = FeatureStore(tmp_path)
        limit_files(500)
        with StoreWriter(store, "replace") as writer:
            writer.append(["text-3"], make_features(make_spec(), 1))

    def merge() -> None:
        limit_files(500)
        compact(FeatureStore(tmp_path))

    for run in (replace, merge):
        assert "make room" in in_child(run)
        assert visible(tmp_path) == before
        assert contents(FeatureStore(tmp_path)) == expected()


def test_a_full_disk_while_answering(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    head = TaskHead(load_head(random_head(make_spec(), task="tone")), "0")
    job = Backfill(store, [head], tmp_path / "answers", probabilities=True)

    def answer() -> None:
        limit_files(300)
        job.run(job.prepare())

    assert "make room" in in_child(answer)
    assert not visible(tmp_path / "answers")
    assert job.run(job.prepare()) == 60
    assert len(visible(tmp_path / "answers")) == 3


@pytest.mark.parametrize("size_kb", [0, 20, 40, 60, 80, 100, 120, 140])
def test_a_full_disk_while_several_tasks_are_answered(
    tmp_path: Path, size_kb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is a step behind the heads: also when it fails, nothing of any task is left."""
    monkeypatch.setattr(answers, "GROUP_ROWS", 1)
    store = fill(tmp_path / "store", row_group_bytes=500)
    heads = [
        TaskHead(load_head(random_head(make_spec(), task=task, classes=classes)), "0")
        for task, classes in (("small", 2), ("large", 2000), ("middle", 9))
    ]
    job = Backfill(store, heads, tmp_path / "answers", probabilities=True)

    def answer() -> None:
        limit_files(size_kb << 10)
        job.run(job.prepare())

    assert "make room" in in_child(answer)
    left = visible(tmp_path / "answers")
    assert not [name for name in left if not name.startswith("part-")]
    assert not [name for name in left if "large" in name]
    assert job.run(job.prepare()) == 60
    assert len(visible(tmp_path / "answers")) == 9


def test_folders_that_may_not_be_written_to(tmp_path: Path) -> None:
    fill(tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    head = TaskHead(load_head(random_head(make_spec(), task="tone")), "0")
    (tmp_path / "closed").mkdir()
    for folder in (tmp_path / "store", tmp_path / "closed"):
        for path in folder.glob(".lock"):
            path.unlink()
        folder.chmod(0o555)
    # Nobody, who may read all the same.
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(path.stat().st_mode | 0o055)

    def as_nobody(run: Callable[[], None]) -> str:
        def call() -> None:
            if os.getuid() == 0:
                os.setuid(65534)
            run()

        return in_child(call)

    def answer() -> None:
        job = Backfill(store, [head], tmp_path / "closed" / "answers")
        with job.lock():
            job.run(job.prepare())

    for run in (lambda: StoreWriter(store).close(), lambda: compact(store) and None, answer):
        message = as_nobody(run)
        assert "cannot be written to" in message
        assert "change its rights, or choose another" in message
    assert as_nobody(lambda: list(FeatureStore(tmp_path / "store").scan()) and None) == (
        "nothing was raised"
    )
    for folder in (tmp_path / "store", tmp_path / "closed"):
        folder.chmod(0o755)


@pytest.mark.parametrize("command", ["encode", "encode_files", "backfill", "compact", "delete"])
def test_killed_at_random_moments(own_bundle: Path, tmp_path: Path, command: str) -> None:
    """STORE_KILLS and STORE_SEED make longer runs."""
    spec = Engine.load(own_bundle, "onnxruntime").spec
    for task in ("tone", "topic"):
        path = own_bundle / "heads" / f"{task}.safetensors"
        write_head(random_head(spec, task=task, seed=len(task)), path)
    script = Path(__file__).with_name("kill_store.py")
    seed = os.environ.get("STORE_SEED", "0")
    words = [sys.executable, script, command, own_bundle, tmp_path, seed, KILLS]
    paths = os.pathsep.join(str(folder) for folder in script.parents[1:4])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    killed, same = done.stdout.split()[-2:]
    assert killed == KILLS
    assert same == "same"
    assert verify(tmp_path / "store") == []
