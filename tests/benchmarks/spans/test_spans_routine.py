"""The cost of spans: a quick run from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import __main__ as command_line
from benchmarks.spans import table


def test_a_quick_run(tiny_bundle: Path, results: Path, capsys: Any) -> None:
    assert command_line.main(["spans", "--quick", "--bundle", str(tiny_bundle)]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    tokenizing, heads = stored["result"]["tokenizing"], stored["result"]["heads"]
    assert tokenizing["texts"] == 40
    assert 40 < tokenizing["words"] < tokenizing["tokens"]
    assert all(us > 0 for us in tokenizing["processor_us"].values())
    cells = {(cell["pooling"], cell["heads"]) for cell in heads["cells"]}
    assert cells == {(p, h) for p in ("attention", "mean", "cls", "last") for h in (1, 8)}
    assert 0.1 < heads["decoding"]["inside"] < 0.9
    shown = table.measured(stored)
    assert "| cls | " in shown
    assert "us per word more." in shown
