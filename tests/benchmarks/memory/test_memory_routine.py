"""Memory runs from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.memory import table


def test_a_quick_run_of_memory(tiny_bundle: Path, results: Path, capsys: Any) -> None:
    assert command_line.main(["memory", "--quick", "--bundle", str(tiny_bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    runs = stored["result"]["runs"]
    assert [run["texts"] for run in runs.values()] == [20, 100, 60, 60]
    assert [run["texts_a_call"] for run in runs.values()] == [20, 20, 60, 20]
    assert runs["many"]["tokens"] == runs["many, streamed"]["tokens"] > runs["few"]["tokens"]
    assert runs["few, five times"]["tokens"] == 5 * runs["few"]["tokens"]
    assert stored["result"]["times_warm"]["few, five times"] == 1
    for run in runs.values():
        assert 0 < run["loaded_rss_bytes"] <= run["peak_rss_bytes"]
    assert "| 60 | 20 |" in table.measured(stored)


@pytest.mark.parametrize("arguments", [["--texts", "10"], ["--threads", "0"], ["--bundle", "none"]])
def test_what_cannot_be_is_said_first(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["memory", *arguments]) == 1
    assert arguments[-1] in capsys.readouterr().err
