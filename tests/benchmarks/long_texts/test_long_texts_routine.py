"""Long texts: a quick run from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.long_texts import table


@pytest.mark.long
def test_a_quick_run(tiny_bundle: Path, results: Path, capsys: Any) -> None:
    assert command_line.main(["long_texts", "--quick", "--bundle", str(tiny_bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    ways = stored["result"]["ways"]
    assert {"bitheads, fp32", "without windows, fp32", "transformers, fp32"} <= set(ways)
    assert all(row["s"] > 0 for way in ways.values() for row in way.values())
    shown = table.measured(stored)
    assert "| one text of | 16 tokens | 600 tokens | memory of the last |" in shown
    assert "times as fast as by transformers" in shown
