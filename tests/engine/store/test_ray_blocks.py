"""What the driver and the workers of a Ray job do, without Ray; tests/ray has them on a cluster."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from random_heads import random_head
from store_cases import contents
from tiny_encoders import corpus

from bitheads import StoreError
from bitheads.engine.bundle import read_manifest
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.jobs import ray_jobs
from bitheads.engine.jobs.ray_blocks import plan_encoding
from bitheads.engine.jobs.ray_jobs import (
    BackfillJob,
    BackfillWorker,
    EncodeJob,
    EncodeWorker,
    Worker,
    Workers,
    encode_on_ray,
)
from bitheads.engine.store import FeatureStore, StoreWriter
from bitheads.engine.store.folder import HOLDER, Folder
from bitheads.engine.texts.text_files import TextFile


@pytest.fixture
def texts(tmp_path: Path) -> TextFile:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(corpus()[:40]), encoding="utf-8")
    return TextFile(path)


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> EncodeJob:
    store = str(tmp_path / "store")
    return EncodeJob(tiny_bundle, store, "onnxruntime", "auto", "skip", 16, 1024, None, "cut")


def plan(job: EncodeJob, texts: TextFile) -> list[dict[str, Any]]:
    store = FeatureStore(job.store, read_manifest(job.bundle).spec)
    with StoreWriter(store) as writer:
        return plan_encoding(texts, writer, "skip", job.block_texts)[0]


def test_a_block_has_one_name_whatever_is_stored_by_now(job: EncodeJob, texts: TextFile) -> None:
    """A worker that outlived its driver must not store the next driver's rows a second time."""
    blocks = plan(job, texts)
    assert len(blocks) == 3
    worker = EncodeWorker(job, 1, texts, "0")
    assert worker.do(blocks[1]) == 16
    again = plan(job, texts)
    assert again == [blocks[0], blocks[2]]
    for block in (*blocks[:2], *again):
        worker.do(block)
    assert sorted(map(int, contents(FeatureStore(job.store)))) == list(range(40))


def test_a_worker_stores_nothing_once_another_run_began(job: EncodeJob, texts: TextFile) -> None:
    """It outlived its driver, and the next run may have blocks of another size."""
    store = FeatureStore(job.store, read_manifest(job.bundle).spec)
    with StoreWriter(store) as writer:
        blocks = plan_encoding(texts, writer, "skip", 16)[0]
        holder = store.folder.holder
        worker = EncodeWorker(job, 1, texts, "0", None, holder)
    with pytest.raises(StoreError, match="the run that this is"):
        worker.do(blocks[0])
    Path(job.store, f"{HOLDER}{holder}").touch()  # as it is left by a driver that is killed
    assert worker.do(blocks[0]) == 16
    for block in plan(replace(job, block_texts=10), texts):
        with pytest.raises(StoreError, match="the run that this is"):
            worker.do(blocks[1])
        EncodeWorker(job, 1, texts, "0").do(block)
    assert sorted(map(int, contents(FeatureStore(job.store)))) == list(range(40))
    assert not list(Path(job.store).glob(".*.partial"))


def test_a_worker_answers_nothing_once_another_run_began(
    job: EncodeJob, texts: TextFile, own_bundle: Path, tmp_path: Path
) -> None:
    """Which may be with another head, whose answers it would write over."""
    spec = read_manifest(own_bundle).spec
    write_head(random_head(spec, task="tone"), own_bundle / "heads" / "tone.safetensors")
    for block in plan(job, texts):
        EncodeWorker(job, 1, texts, "0").do(block)
    first, second, _ = FeatureStore(job.store).parts
    output = tmp_path / "answers"
    folder = Folder(output)
    with folder.lock():
        asked = BackfillJob(own_bundle, job.store, str(output), None, False)
        worker = BackfillWorker(asked, 1, folder.holder)
        assert worker.do({"name": first.name}) == 16
    with folder.lock(), pytest.raises(StoreError, match="the run that this is"):
        worker.do({"name": second.name})
    assert [path.name for path in (output / "task=tone").iterdir()] == [first.name]


def test_the_next_run_waits_for_what_is_being_published(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "store")
    with folder.lock():
        holder = folder.holder
    (tmp_path / "store" / f"{HOLDER}{holder}").touch()  # as it is left by one that is killed
    worker, begun = Folder(tmp_path / "store"), threading.Event()
    worker.publish_for(holder)

    def begin() -> None:
        with Folder(tmp_path / "store").lock():
            begun.set()

    with worker.publishing():
        thread = threading.Thread(target=begin)
        thread.start()
        assert not begun.wait(0.3)
    thread.join(60)
    assert begun.is_set()
    with pytest.raises(StoreError, match="is over"), worker.publishing():
        pass


def test_a_job_means_the_same_in_every_process(
    job: EncodeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = replace(job, bundle=Path("b"), store="s").anywhere()
    assert found == replace(job, bundle=tmp_path / "b", store=str(tmp_path / "s"))
    answers = BackfillJob(Path("b"), "s", "s3://bucket/o", None, False).anywhere()
    assert answers == BackfillJob(tmp_path / "b", str(tmp_path / "s"), "s3://bucket/o", None, False)


def test_a_worker_says_what_is_wrong_in_a_row(
    job: EncodeJob, texts: TextFile, tmp_path: Path
) -> None:
    block = {"name": np.array(["part-00000000-a.parquet"])}
    answers = BackfillJob(tmp_path, job.store, str(tmp_path / "answers"), None, False)
    for kind, arguments in (
        (EncodeWorker, (replace(job, bundle=tmp_path), 1, texts, "0")),
        (BackfillWorker, (answers, 1)),
    ):
        row = Worker(kind, arguments)(block)
        assert row["texts"].tolist() == [0]
        assert "no bundle.json" in row["error"][0]


def test_texts_that_are_not_there_in_the_end(
    job: EncodeJob, texts: TextFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may have written to a folder of that name on another machine."""
    monkeypatch.setattr(ray_jobs, "_run", lambda *arguments: 40)
    bar = SimpleNamespace(update=lambda count: None)
    with pytest.raises(StoreError, match="has 0 texts more than before, expected the 40"):
        encode_on_ray(job, texts, Workers(), bar)
