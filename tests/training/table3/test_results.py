"""Result files: whole, of one configuration, or an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitheads.training.errors import CheckpointError
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
