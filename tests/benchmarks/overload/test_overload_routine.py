"""The overload runs from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.overload import table


@pytest.mark.long
def test_a_quick_run_of_overload(head_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["overload", "--quick", "--bundle", str(head_bundle)]) == 0
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = stored["result"]
    assert sum(result["statuses"].values()) == result["requests"] > 10
    assert {*result["statuses"]} <= {"200", "429"}
    assert len(result["peak_bytes_by_quarter"]) == 4
    assert min(result["peak_bytes_by_quarter"]) > 10e6
    assert result["exit_code"] == 0
    assert "Asked 2 times what it can do" in table.measured(stored)
