"""`python -m benchmarks table3`: what is served is what was evaluated, and its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.table3 import measure, table
from bitheads.export.make_bundle import make_bundle

Arguments = Callable[..., list[str]]


@pytest.fixture
def stored(
    arguments: Arguments,
    few_texts: Path,
    traced_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(
        measure,
        "make_bundle",
        lambda config, say: make_bundle(replace(config, calibration=few_texts), say),
    )
    settings = {
        "frozen": ["mean/attention/float"],
        "all_tasks": True,
        "all_tasks_heads": ["mean/attention/float", "mean/attention/sign"],
    }
    options = arguments(tmp_path / "out", **settings)
    assert command_line.main(["table3", "--name", "tiny", *options]) == 0
    return record.read("table3_tiny")


@pytest.mark.long
def test_served_as_evaluated(stored: dict[str, Any]) -> None:
    served = stored["result"]["served"]
    assert served["recipe"].endswith("/attention/sign")
    assert list(served["tasks"]) == ["topics", "sport", "paraphrase"]
    rows = {row["name"]: row for row in stored["result"]["table"]["rows"]}
    for task, found in served["tasks"].items():
        # The head that is served is the one of the table's cell.
        (accuracy,) = rows[served["recipe"]]["accuracy"][task]
        assert found["evaluated"] == pytest.approx(accuracy, abs=1e-3)
        exact = found["openvino fp32"]
        assert exact["accuracy"] == pytest.approx(found["evaluated"], abs=5)
        assert exact["same_label"] >= 95


@pytest.mark.long
def test_tables(stored: dict[str, Any]) -> None:
    summary, details = table.summary(stored), table.details(stored)
    assert "| **all tasks, new heads** | | | |" in summary
    assert summary.count("/attention/float |") == 2, "only the number of layers that was chosen"
    used = next(line for line in summary.splitlines() if line.startswith("| used as is |"))
    assert used.split("|")[3].strip() == "89.3"
    assert "| method | topics | sport | paraphrase | average | GFLOPs |" in details
    rows = stored["result"]["served"]["tasks"]["topics"]["rows"]
    assert f"\n| topics | {rows} | " in details
    assert "(../benchmarks/results/table3_tiny.json)" in details
