"""Result files: whole, of one configuration, or an error."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bitheads.training.errors import CheckpointError
from bitheads.training.table3 import clock
from bitheads.training.table3.clock import Clock
from bitheads.training.table3.results import Cell, Results

CELL = Cell("frozen", "sport", "mean-4/attention/sign.seed-0")
IDENTITY = {"seed": 0, "head": {"epochs": 3, "rates": [0.1]}}


def test_a_cell_is_read_as_it_was_written(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert results.read(CELL, IDENTITY) is None
    results.write(CELL, IDENTITY, {"test": {"accuracy": 0.5}}, {"threads": 1})
    assert results.read(CELL, IDENTITY) == {"test": {"accuracy": 0.5}}
    (path,) = tmp_path.rglob("*.*")
    assert path == tmp_path / "frozen" / "sport" / "mean-4.attention.sign.seed-0.json"
    assert json.loads(path.read_text())["made_with"] == {"threads": 1}


def test_another_identity(tmp_path: Path) -> None:
    Results(tmp_path).write(CELL, IDENTITY, {}, {})
    other = {"seed": 1, "head": {"epochs": 3, "rates": [0.2]}}
    message = r"head.rates \(got \[0.2\], the file has \[0.1\]\); seed \(got 1, the file has 0\)"
    with pytest.raises(CheckpointError, match=message):
        Results(tmp_path).read(CELL, other)
    assert Results(tmp_path, replace=True).read(CELL, other) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format_version": 9}'])
def test_what_cannot_be_read(tmp_path: Path, text: str) -> None:
    results = Results(tmp_path)
    results.write(CELL, IDENTITY, {}, {})
    results.path(CELL).write_text(text)
    with pytest.raises(CheckpointError, match="Remove it: the cell is computed again"):
        results.read(CELL, IDENTITY)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "frozen").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Results(tmp_path).write(CELL, IDENTITY, {}, {})


def test_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    lines: list[str] = []
    watch = Clock(Counter(heads=5, encoders=2), lines.append)
    watch.skip("heads", 2)
    with watch.timing("heads") as seconds:
        now[0] += 1
        with watch.timing("encoders"):
            now[0] += 60
        now[0] += 2
        assert seconds() == 3  # without the encoder it needed
    watch.say("done")
    assert lines == ["done; 1 encoders, 2 heads to go, 1 min 06 s left"]
    assert watch.seconds_each() == {"encoders": 60, "heads": 3}
    fresh = Clock(Counter(heads=1, students=1), lines.append)
    assert fresh.left() == "1 heads, 1 students to go"
    with fresh.timing("heads"):
        now[0] += 1
    assert fresh.left() == "1 students to go"
    fresh.skip("students")
    assert fresh.left() == "nothing left"
