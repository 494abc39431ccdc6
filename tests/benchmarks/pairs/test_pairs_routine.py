"""The cost of pairs: a quick run from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import __main__ as command_line
from benchmarks.pairs import table


def test_a_quick_run(tiny_bundle: Path, results: Path, capsys: Any) -> None:
    assert command_line.main(["pairs", "--quick", "--bundle", str(tiny_bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = stored["result"]
    assert [(cell["shape"], cell["heads"]) for cell in result["heads"]] == [
        ("all-MiniLM-L6-v2", 1),
        ("all-MiniLM-L6-v2", 8),
    ]
    for cell in (*result["heads"], result["encoding"]):
        assert all(us > 0 for us in cell["processor_us"].values())
    encoding = result["encoding"]
    assert encoding["tokens"]["joint"] > encoding["tokens"]["text"]
    shown = table.measured(stored)
    assert "| all-MiniLM-L6-v2 | 1 | " in shown
    assert "pairs of encoded texts by a head." in shown
