"""Model types: a quick run from end to end, and what fails is a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.inputs.model_types import REFUSED, TYPES
from benchmarks.inputs.tokenizer_kinds import KINDS
from benchmarks.model_types import measure, table


@pytest.mark.long
def test_a_quick_run(results: Path, capsys: Any) -> None:
    assert command_line.main(["model_types", "--quick"]) == 0
    assert not list(results.iterdir())
    stored = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = stored["result"]["types"]["bert"]
    assert min(row["fp32"]["signs"].values()) >= 0.999
    assert min(row["fp16"]["signs"].values()) >= 0.997
    shown = table.types(stored)
    assert "| `bert` | 100.00% / 100.00% | " in shown
    assert "| bert: same | " in shown
    tokenizers = table.tokenizers(stored)
    assert "| bert | all of 3," in tokenizers


def test_what_fails_is_a_row() -> None:
    row = measure._row({"part": "types", "name": "no-such-type"})
    assert "KeyError: 'no-such-type'" in row["failed"]
    refused = {"fp32": {"signs": {"openvino": 1.0}}, "fp16": {"refused": "too | much"}}
    stored = {
        "name": "model_types",
        "command": "c",
        "date": "d",
        "cores": 1,
        "cpu": "c",
        "result": {
            "types": {"a": row, "b": {"layers": 2, **refused, "plan": {"refused": "no"}}},
            "tokenizers": {
                "x": row,
                "y": {"texts": 4, "same": 3, "differing": {"z": {"texts": 2, "same": 1}}},
            },
        },
    }
    shown = table.types(stored)
    assert "| `a` | benchmarks.model_types.child ended with 1:" in shown
    assert "| `b` | 100.00% | too \\| much | bert: not compared | no |" in shown
    assert "| y | 3 of 4 | z (1 of 2) |" in table.tokenizers(stored)


def test_a_run_goes_on(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One type is measured again in what is stored; one that was stopped has the rest to do."""
    monkeypatch.setattr(measure, "KEPT", tmp_path / "build" / "kept.json")
    done: list[str] = []
    monkeypatch.setattr(measure, "_row", lambda request: done.append(request["name"]) or {})
    assert command_line.main(["model_types"]) == 0
    assert done[: len(TYPES)] == list(TYPES)
    assert done[-len(KINDS) :] == list(KINDS)
    done.clear()
    assert command_line.main(["model_types", "--types", "t5"]) == 0
    assert done == ["t5"]
    assert set(TYPES) < set(record.read("model_types")["result"]["types"])
    measure.KEPT.write_text(json.dumps({"types": {name: {} for name in TYPES}}))
    done.clear()
    assert command_line.main(["model_types", "--resume"]) == 0
    assert done == [*REFUSED, *KINDS]
    assert "mpnet" in record.read("model_types")["result"]["types"]
    assert not measure.KEPT.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--types", "berd"], "got ['berd']"), (["--published", "nothing"], "no */tokenizer.json")],
)
def test_what_cannot_be_is_said_first(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["model_types", *arguments]) == 1
    assert message in capsys.readouterr().err
