"""`bitheads build`: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitheads.engine.bundle import read_manifest
from bitheads.export.build import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arguments(
    tiny_encoder: Callable[[str], Path], few_texts: Path, traced_once: None, tmp_path: Path
) -> list[str]:
    """A build that works."""
    return [
        *("--encoder", str(tiny_encoder("bert"))),
        *("--calibration", str(few_texts)),
        *("--output", str(tmp_path / "out" / "bundle")),
    ]


def test_it_builds(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"wrote {tmp_path / 'out' / 'bundle'}" in shown.err
    assert read_manifest(tmp_path / "out" / "bundle").spec.layers == (2, 3)


def test_json_is_the_manifest_and_nothing_else(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json", "--precision", "fp32"]) == 0
    printed = json.loads(capsys.readouterr().out)
    folder = tmp_path / "out" / "bundle"
    assert printed.pop("output") == str(folder)
    assert printed == json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    assert printed["encoder"]["precision"] == "fp32"


def test_every_option_reaches_the_build(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        *("--layers", "2-3", "--layer-pooling", "learned", "--layer-weights", "0.5,-1.5"),
        *("--quantization", "sign", "--thresholds", "median", "--max-length", "30"),
        *("--min-sign-agreement", "0.99", "--force"),
    ]
    assert main([*arguments, *options]) == 0
    manifest = read_manifest(tmp_path / "out" / "bundle")
    assert manifest.spec.layer_weights == (0.5, -1.5)
    assert manifest.spec.calibration_sha256 is not None
    assert manifest.encoder.max_length == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "no-such/encoder"], "found no model there"),
        (["--layers", "9"], "--layers: got '9'"),
        (["--layers", "x"], "expected a form like"),
        (["--layer-weights", "1,2"], "go together"),
        (["--order", "sign_then_vote", "--quantization", "uint8"], "Only signs can vote"),
        (["--thresholds", "nothing.safetensors"], "expected zero, mean, median"),
        (["--calibration", "nothing.txt"], "cannot be read"),
        (["--max-length", "1000"], "expected 5 to 64"),
        (["--heads", "nothing"], "no such folder"),
        (["--output", "/dev/null/bundle"], "cannot be written"),
    ],
)
def test_an_error_is_one_line_and_code_1(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    assert main([*arguments, *options]) == 1
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if not line.startswith("[")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert shown.out == ""
    assert not (tmp_path / "out" / "bundle").exists()


def test_low_sign_agreement_is_code_1(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--min-sign-agreement", "1.1"]) == 1
    error = capsys.readouterr().err
    assert "error: the graph does not match its source" in error
    assert "Nothing was written." in error
    assert not (tmp_path / "out" / "bundle").exists()


def test_an_existing_output_is_code_1_at_once(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make_bundle(*arguments: Any) -> None:
        pytest.fail("the build began")

    monkeypatch.setattr("bitheads.export.make_bundle.make_bundle", make_bundle)
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith("error: --output")


def test_an_interrupt_is_code_130(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitheads.export.make_bundle.export_graph", interrupt)
    assert main(arguments) == 130
    assert capsys.readouterr().err.endswith("interrupted: nothing was written\n")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--precision", "int4"],
        ["--quantization", "int4"],
        ["--layer-weights", "a,b"],
        ["--max-length", "x"],
        ["--unknown"],
        ["extra"],
    ],
)
def test_options_that_cannot_be_parsed_are_code_2(
    capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 2
    assert "usage: bitheads build" in capsys.readouterr().err


def run_command(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "bitheads", "build", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_shows_its_help() -> None:
    done = run_command("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for option in ("--encoder", "--layers", "--thresholds", "--force", "--json", "examples:"):
        assert option in done.stdout


def test_the_command_ends_with_one_line_and_code_1(tmp_path: Path) -> None:
    done = run_command("--output", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"error: --output {tmp_path} exists. Pass --force to replace it, or choose another.\n"
    )
