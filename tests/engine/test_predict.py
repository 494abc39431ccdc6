"""`python -m engine.predict`: its table, its JSON, its errors."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from random_heads import random_head

from engine import Engine
from engine.head_file import write_head
from engine.predict import main


@pytest.fixture
def bundle(own_bundle: Path) -> Path:
    """A bundle with a head for texts and one for pairs."""
    spec = Engine.load(own_bundle).spec
    for task, form in (("tone", "single"), ("same", "pair")):
        write_head(
            random_head(spec, task=task, form=form), own_bundle / "heads" / f"{task}.safetensors"
        )
    return own_bundle


def test_demo_prints_a_table_and_the_cost(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--bundle", str(bundle), "--demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["text", "tone"]
    pairs = next(i for i, line in enumerate(lines) if line.split() == ["pair", "same"])
    assert all("label-" in line for line in lines[1 : pairs - 1])
    assert pairs - 2 == 28
    costs = "\n".join(lines[pairs:])
    assert "36 texts" in costs
    for word in ("tokenize", "encode", "pack", "heads", "these codes (sign)", "all 3 layers"):
        assert word in costs


def test_narrow_terminals_get_blocks(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["--bundle", str(bundle), "--demo", "--tasks", "tone"]) == 0
    assert any(line.startswith("    tone: label-") for line in capsys.readouterr().out.splitlines())


def test_json_lines_from_a_file(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one text\r\n\nfirst\tsecond\nÜmläut ☃\n", encoding="utf-8")
    assert main(["--bundle", str(bundle), "--input", str(texts), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["one text", ["first", "second"], "Ümläut ☃"]
    assert [list(row["tasks"]) for row in rows] == [["tone"], ["same"], ["tone"]]

    engine = Engine.load(bundle)
    expected = engine.predict(["one text", ("first", "second"), "Ümläut ☃"])["tone"]
    assert rows[2]["tasks"]["tone"]["label"] == expected.top[2]
    assert rows[2]["tasks"]["tone"]["probability"] == pytest.approx(
        float(expected.probabilities[2].max()), abs=1e-3
    )


def test_standard_input(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"from a pipe \xff\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert main(["--bundle", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "from a pipe \ufffd"


def test_a_closed_pipe_is_no_error(bundle: Path) -> None:
    command = f"{sys.executable} -m engine.predict --bundle {bundle} --demo --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "absent", "--demo"], "no bundle.json there"),
        (["--demo", "--tasks", "tnoe"], "task 'tnoe': no such head is loaded"),
        (["--input", "absent.txt"], "absent.txt: cannot be read"),
        (["--input", "/dev/null"], "no texts to predict"),
        (["--demo", "--backend", "cuda"], "backend: got 'cuda'"),
        (["--demo", "--max-batch-tokens", "0"], "max_batch_tokens: got 0"),
    ],
)
def test_errors(
    bundle: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(bundle), *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert not printed.out


def test_a_bundle_without_heads(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(own_bundle), "--demo"]) == 1
    assert "has no heads" in capsys.readouterr().err
