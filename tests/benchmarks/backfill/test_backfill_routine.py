"""The backfill's benchmark: it runs, its figures are of what it says, and the table shows them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.backfill import measure, table
from benchmarks.backfill.costs import by_machine
from benchmarks.inputs.random_heads import spec_of
from bitheads.engine.features.spec import Quantization
from bitheads.engine.store import FeatureStore, verify


def test_a_quick_run_stores_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    options = ["--quick", "--bundle", str(tiny_bundle), "--folder", str(tmp_path)]
    assert command_line.main(["backfill", *options]) == 0
    assert not list(tmp_path.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    tiny = stored["result"]["shapes"]["tiny"]
    assert tiny["texts"] == 500
    assert list(tiny["tasks"]) == ["1", "14"]
    # Ids and lengths take little beside the codes.
    assert 50 * 8 < tiny["of_50_tokens"]["sign"] < 50 * 8 + 30
    assert 50 * 128 < tiny["of_50_tokens"]["float16"] < 50 * 128 + 30
    assert tiny["of_50_tokens"]["all layers float16"] == 3 * 50 * 128
    shown = table.measured(stored)
    assert "| tiny | 14 | " in shown
    assert "A text of 50 tokens takes 4" in shown


def test_costs_follow_from_times(results: Path) -> None:
    shape = {"encoding_us_a_text": 3600.0, "tokens_a_text": 10.0}
    row = "| tiny | a core of the machine above | 1,000 | $40 | 3.6 cores |"
    assert row in by_machine({"tiny": shape})
    many = {"random lengths": {"16384": {"status": "measured", "result": {"tokens_per_s": 1e4}}}}
    speed = {"onnxruntime-cuda": {"status": "measured", "result": {"throughput": many}}}
    stored = {"result": {"encoders": {"tiny, seeded": {"speed": speed}}}}
    (results / "gpu.json").write_text(json.dumps(stored), encoding="utf-8")
    row = "| tiny | an NVIDIA H200 | 278 | $1,110 | 1 GPUs |"
    assert row in by_machine({"tiny": shape})


def test_stored_texts_have_the_lengths_of_the_pool(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, spec_of(measure.TINY, Quantization.SIGN))
    lengths = np.array([3, 7, 1], np.int64)
    measure.write_store(store, lengths, 100)
    found = np.concatenate([rows.features.num_tokens for rows in store.scan()])
    assert found.tolist() == [(3, 7, 1)[i % 3] for i in range(100)]
    assert verify(tmp_path) == []


def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with measure.one_core():
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before


def test_too_few_texts(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["backfill", "--texts", "10"]) == 1
    assert "--texts: got 10" in capsys.readouterr().err
