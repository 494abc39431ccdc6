"""Cost by number of tasks: the counting, the crossings, the picture, the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.figures import flops
from benchmarks.heads.cases import FULL
from benchmarks.inputs.shapes import SHAPES
from benchmarks.tasks import measure, plot, table
from benchmarks.tasks.curves import HeadTimes, Line, Shared, cheaper_from


def test_the_paper_s_ratio_and_crossing() -> None:
    """Section 3.2: a distilled encoder takes a seventh; Section 6.5: heads win past 7 tasks."""
    large, small = (flops.encoder(s, 50) for s in (SHAPES["RoBERTa-large"], FULL.distilled))
    assert 6.9 < large / small < 7.2
    curves = measure.counted()
    cheaper = measure.described(curves)["cheaper_from_tasks"]
    for heads in (measure.PAPER_HEADS, measure.HEADS):
        assert cheaper[heads][measure.DISTILLED_EACH] == 8
        assert cheaper[heads][measure.FINE_TUNED] == 2
    assert curves[measure.FINE_TUNED](1) == pytest.approx(30.5, abs=0.5)


def test_heads_cost_between_what_was_measured() -> None:
    heads = HeadTimes({1: 10.0, 11: 30.0})
    assert [heads(k) for k in (0, 1, 6, 11, 21)] == [0, 10, 20, 30, 50]
    assert Shared(100.0, heads)(6) == 120
    assert HeadTimes({1: 10.0})(5) == 50


def test_cheaper_for_good() -> None:
    assert cheaper_from(Line(70, 0), Line(0, 10), 100) == 8
    assert cheaper_from(Line(70, 10), Line(0, 10), 100) is None
    assert cheaper_from(Line(0, 1), Line(0, 2), 100) == 1
    steep = HeadTimes({1: 1.0, 50: 5000.0})
    assert cheaper_from(Shared(0, steep), Line(0, 10), 100) is None  # cheaper, but not for good


def test_a_quick_run_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert command_line.main(["tasks", "--quick"]) == 0
    assert not list(tmp_path.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    shown = table.measured(stored)
    assert "| 8 | 24" in shown
    assert "In FLOPs: shared encoder, the paper's heads beats fine-tuned encoder a task" in shown
    assert "folded heads beats distilled encoder a task from 8 tasks on." in shown


def made_up_heads(**changes: Any) -> dict[str, Any]:
    return {
        "name": "heads",
        "command": "python -m benchmarks heads",
        "date": "2026-01-01",
        "commit": "abc",
        "cpu": "X",
        "result": {**measure.MADE_UP, **changes},
    }


def test_a_run_reads_what_heads_stored_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, plot = tmp_path / "benchmarks" / "results", tmp_path / "docs" / "tasks.png"
    results.mkdir(parents=True)
    monkeypatch.setattr(record, "RESULTS", results)
    (results / "heads.json").write_text(json.dumps(made_up_heads()), encoding="utf-8")
    assert command_line.main(["tasks", "--plot", str(plot)]) == 0
    first = plot.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert command_line.main(["tasks", "--plot", str(plot)]) == 0
    assert plot.read_bytes() == first
    stored = record.read("tasks")
    assert stored["command"] == "python -m benchmarks tasks --plot FILE"
    assert "measured them on 2026-01-01, X." in table.measured(stored)


def test_it_is_said_what_to_measure_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert command_line.main(["tasks"]) == 1
    assert "Type: python -m benchmarks heads" in capsys.readouterr().err
    without = made_up_heads(encoders={})
    (tmp_path / "heads.json").write_text(json.dumps(without), encoding="utf-8")
    assert command_line.main(["tasks"]) == 1
    assert "without --skip-encoder" in capsys.readouterr().err


def test_without_matplotlib_it_is_said_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Exception, match=r"needs matplotlib\. Type: pip install"):
        plot.draw({"gflops": measure.counted()}, 10)
