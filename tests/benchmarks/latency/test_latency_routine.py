"""Latency runs from end to end, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from random_heads import random_head

from benchmarks import __main__ as command_line
from benchmarks.figures.turns import Samples
from benchmarks.latency import measure, table
from bitheads import Engine
from bitheads.engine.heads.head_file import write_head


def test_a_quick_run_of_latency(own_bundle: Path, results: Path, capsys: Any) -> None:
    spec = Engine.load(own_bundle).spec
    write_head(random_head(spec, task="urgency"), own_bundle / "heads" / "urgency.safetensors")
    assert command_line.main(["latency", "--quick", "--bundle", str(own_bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = stored["result"]
    assert result["tasks"] == 1
    assert {*result["us"]} == {"predict", "bare encoder"}
    start = result["start"]
    for which in ("first", "later"):
        parts = sum(start[which][name] for name in ("import_s", "load_s", "predict_s"))
        assert 0 < parts < start[which]["first_answer_s"]
        assert start[which]["import_s"] > 0.01
    shown = table.measured(stored)
    assert "| `predict`, 1 tasks |" in shown
    assert "with an empty cache folder" in shown


def test_latency_needs_heads(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["latency", "--quick", "--bundle", str(tiny_bundle)]) == 1
    assert "has no heads" in capsys.readouterr().err


def test_a_summary() -> None:
    samples = Samples({"predict": [float(us) for us in range(101)], "bare encoder": [20.0] * 101})
    found = measure.summary(samples)
    assert found["us"]["predict"] == {"p50": 50, "p95": 95, "p99": 99}
    assert found["added_us"] == 30


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--calls", "0"], ["--bundle", "none"]])
def test_what_cannot_be_is_said_first(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["latency", *arguments]) == 1
    assert arguments[-1] in capsys.readouterr().err
