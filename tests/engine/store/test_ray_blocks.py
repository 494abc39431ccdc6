"""What the driver and the workers of a Ray job do, without Ray; tests/ray has them on a cluster."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from store_cases import contents
from tiny_encoders import corpus

from engine import StoreError, encode, ray_jobs
from engine.bundle import read_manifest
from engine.ray_jobs import BackfillWorker, EncodeWorker, Worker, encode_on_ray, for_workers
from engine.store import FeatureStore, StoreWriter
from engine.text_files import TextFile


@pytest.fixture
def options(tiny_bundle: Path, tmp_path: Path) -> Namespace:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(corpus()[:40]), encoding="utf-8")
    words = ["--bundle", tiny_bundle, "--input", path, "--store", tmp_path / "store"]
    words += ["--backend", "onnxruntime", "--block-texts", 16, "--runner", "ray"]
    return for_workers(encode._parser().parse_args(list(map(str, words))))


def plan(options: Namespace) -> list[dict[str, Any]]:
    store = FeatureStore(options.store, read_manifest(options.bundle).spec)
    with StoreWriter(store) as writer:
        texts = TextFile(options.input)
        return ray_jobs.plan_encoding(texts, writer, "skip", options.block_texts)[0]


def test_a_block_has_one_name_whatever_is_stored_by_now(options: Namespace) -> None:
    """A worker that outlived its driver must not store the next driver's rows a second time."""
    blocks = plan(options)
    assert len(blocks) == 3
    worker = EncodeWorker(options, TextFile(options.input), "0")
    assert worker.do(blocks[1]) == 16
    again = plan(options)
    assert again == [blocks[0], blocks[2]]
    for block in (*blocks[:2], *again):
        worker.do(block)
    assert sorted(map(int, contents(FeatureStore(options.store)))) == list(range(40))


def test_options_mean_the_same_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = Namespace(bundle=Path("b"), store="s", output="s3://bucket/o", threads=None, workers=2)
    found = for_workers(given)
    assert found == Namespace(
        bundle=tmp_path / "b",
        store=str(tmp_path / "s"),
        output="s3://bucket/o",
        threads=1,
        workers=2,
    )
    assert given.threads is None
    assert for_workers(Namespace(threads=3)).threads == 3


def test_a_worker_says_what_is_wrong_in_a_row(options: Namespace, tmp_path: Path) -> None:
    options.bundle = tmp_path
    options.tasks = None
    block = {"name": np.array(["part-00000000-a.parquet"])}
    for kind, arguments in (
        (EncodeWorker, (options, TextFile(options.input), "0")),
        (BackfillWorker, (options,)),
    ):
        row = Worker(kind, arguments)(block)
        assert row["texts"].tolist() == [0]
        assert "no bundle.json" in row["error"][0]


def test_texts_that_are_not_there_in_the_end(
    options: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may have written to a folder of that name on another machine."""
    monkeypatch.setattr(ray_jobs, "_run", lambda *arguments: 40)
    bar = SimpleNamespace(update=lambda count: None)
    with pytest.raises(StoreError, match="has 0 texts more than before, expected the 40"):
        encode_on_ray(options, TextFile(options.input), bar)
