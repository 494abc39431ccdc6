"""All that may stop `bitheads table3`, and how it goes on."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from table_files import cells_of, results_of

from bitheads.training.errors import CheckpointError
from bitheads.training.multitask import train as train_multitask
from bitheads.training.table3 import __main__ as table3
from bitheads.training.table3.__main__ import main

Arguments = Callable[..., list[str]]


def stop_at(monkeypatch: pytest.MonkeyPatch, start: str) -> list[str]:
    """Ctrl-C once a line is said that starts so; all lines that are said."""
    lines: list[str] = []

    def say(message: str) -> None:
        lines.append(message)
        if message.startswith(start):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(table3, "say", say)
    return lines


def test_interrupted(
    frozen: Path, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, "frozen sport last")
        assert main(arguments(output)) == 130
    before = cells_of(output)
    assert 3 <= len(before) < len(cells_of(frozen))
    assert main(arguments(output)) == 0
    assert before.items() <= cells_of(output).items()
    assert results_of(output) == results_of(frozen)


def test_another_configuration(
    frozen: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(frozen, tmp_path / "out"))
    before = cells_of(output)
    assert main(arguments(output, head={"epochs": 1})) == 1
    error = capsys.readouterr().err
    assert "head.epochs (got 1, the file has 2)" in error
    assert "--force to compute such cells again" in error
    assert main(arguments(output, max_test_rows=10)) == 1
    assert "data.test.rows (got 10, the file has 30)" in capsys.readouterr().err
    assert cells_of(output) == before
    assert main(arguments(output, "--force", head={"epochs": 1})) == 0
    assert set(cells_of(output)) >= set(before)
    # With one epoch another number of layers may be the best: the signs of that are the table's.
    chosen = json.loads((output / "table.json").read_text())["chosen_layers"]["frozen"]
    results = results_of(output)
    shown = [name for name in results if ".sign." not in name or f"mean-{chosen}." in name]
    assert len(shown) == 3 * 4
    assert {results[name]["epochs"] for name in shown} == {1}
    assert main(arguments(output, head={"epochs": 1})) == 0


def test_another_configuration_of_encoders(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    settings = {"frozen": [], "all_tasks": True}
    assert main(arguments(output, **settings)) == 0
    changed = {**settings, "multitask": {"steps": 2, "batch_size": 4}}
    assert main(arguments(output, **changed)) == 1
    assert "encoder.training.steps (got 2, the file has 3)" in capsys.readouterr().err
    assert main(arguments(output, "--force", **changed)) == 0
    record = json.loads((output / "encoders" / "all" / "multitask.json").read_text())
    assert record["step"] == 2


def test_force_trains_again_what_came_of_other_weights(
    arguments: Arguments, tiny_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    output, encoder = tmp_path / "out", tmp_path / "encoder"
    settings = {"frozen": [], "all_tasks": True}

    def run_with(weights: Path, *options: str) -> int:
        shutil.rmtree(encoder, ignore_errors=True)
        shutil.copytree(weights, encoder)
        return main([*arguments(output, *options, **settings), "--encoder", str(encoder)])

    def base() -> str:
        record = json.loads((output / "encoders" / "all" / "multitask.json").read_text())
        return str(record["base"]["weights_sha256"])

    assert run_with(tiny_encoder("bert")) == 0
    before = base()
    other = tmp_path / "other"
    shutil.copytree(output / "encoders" / "all", other)
    assert run_with(other) == 1
    assert run_with(other, "--force") == 0
    assert base() != before
    cell = json.loads((output / "cells" / "all_tasks" / "sport" / "as-is.json").read_text())
    assert cell["identity"]["encoder"]["weights_sha256"] == base()


def test_force_keeps_a_checkpoint_when_the_disk_is_full(
    arguments: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    settings = {"frozen": [], "all_tasks": True, "multitask": {"steps": 3, "checkpoint_every": 1}}
    write = train_multitask.write_checkpoint

    def write_two(folder: Path, *rest: Any) -> Any:
        if folder.name == "step-00000003":
            raise CheckpointError("No space left on device. Make room there.")
        return write(folder, *rest)

    monkeypatch.setattr(train_multitask, "write_checkpoint", write_two)
    assert main(arguments(output, "--force", **settings)) == 1
    assert "The checkpoint of step 2 is whole" in capsys.readouterr().err
    assert (output / "encoders" / "all" / "run" / "step-00000002").is_dir()


def test_a_damaged_cell(
    frozen: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(frozen, tmp_path / "out"))
    damaged = next((output / "cells").rglob("*.json"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert main(arguments(output)) == 1
    assert f"{damaged}: cannot be read" in capsys.readouterr().err
    damaged.unlink()
    assert main(arguments(output)) == 0
    assert results_of(output) == results_of(frozen)


def test_loss_that_is_not_finite(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(arguments(output, learning_rates=[1e30])) == 1
    error = capsys.readouterr().err
    assert "task topics, mean-2/attention/float, seed 0: epoch 1: the loss is" in error
    settings = {"frozen": [], "all_tasks": True}
    rates = {"multitask": {"steps": 3, "learning_rate": 1e30, "checkpoint_every": 1}}
    assert main(arguments(output, **settings, **rates)) == 1
    error = capsys.readouterr().err
    assert "step 2, task" in error
    assert "The checkpoint of step 1 is whole" in error or "is not finite" in error


def test_full_disk(
    frozen: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file may grow past a limit: cells fit, features do not."""
    output = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        assert main(arguments(output)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Make room there" in capsys.readouterr().err
    assert not list((output / "scratch").iterdir())
    assert main(arguments(output)) == 0
    assert results_of(output) == results_of(frozen)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": ["absent"]}, "has no task 'absent'"),
        ({"tasks": ["senses"]}, "senses/train.tsv has labels of words, from start to end"),
        ({"frozen": ["mean/attention/sgn"]}, "recipe 'mean/attention/sgn'"),
        ({"frozen": ["mean-9/attention/sign"]}, "encoder of 3 layers, expected at least 8"),
        ({"frozen": ["last/cls/sign"] * 2}, "twice. Remove one"),
        ({"head": {"epochs": 0}}, "head.epochs: got 0, expected at least 1"),
        ({"wsd": {"task": "senses", "layers": [9]}}, "wsd.layers: got [9], expected numbers from"),
        ({"head": {"epoch": 3}}, "got the unknown keys head.epoch, expected some of"),
        ({"multitask": {"steps": 0}}, "multitask.steps: got 0, expected at least 1"),
        ({"seeds": []}, "seeds: got (), expected different ones"),
        ({"student": True}, "expected single_task = true"),
        ({"learning_rates": [0]}, "learning_rates: got 0.0, expected numbers above 0"),
        ({"leave_one_type_out": ["last/cls/sign"], "types": ["NLI"]}, "types: got ['NLI']"),
        ({"leave_one_type_out": ["last/cls/sign"], "tasks": ["sport", "topics"]}, "Add others"),
        ({"leave_one_task_out": ["last/cls/sign"], "tasks": ["sport"]}, "expected at least two"),
        ({"max_length": 900}, "max_length: got 900, expected 5 to 64"),
        ({"wsd": {"task": "sport"}, "frozen": []}, "sport/train.tsv, line 1"),
        (
            {"single_task": True, "student": True, "distil": {"layers": 9}, "frozen": []},
            "distil.layers: got 9, expected at most 3",
        ),
    ],
)
def test_errors(
    arguments: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    message: str,
) -> None:
    assert main(arguments(tmp_path / "out", **changed)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("\t", " ", 1), "test.tsv, line 1: got the columns"),
        (lambda text: text + "\nfood\ta\tb", "columns, expected 2 (label, text)"),
        (lambda text: text + "\nfoood\tSoup.", "label 'foood' is not among the training labels"),
        (lambda text: "label\ttext_a\ttext_b\nfood\ta\tb", "of the form 'pair', expected 'single'"),
    ],
)
def test_unsound_test_rows(
    arguments: Arguments,
    grid_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[str], str],
    message: str,
) -> None:
    data = Path(shutil.copytree(grid_folder, tmp_path / "data"))
    path = data / "topics" / "test.tsv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert main([*arguments(tmp_path / "out"), "--data", str(data)]) == 1
    assert message in capsys.readouterr().err


def test_outputs_that_are_refused(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for output in (tmp_path, tmp_path / "notes.txt"):
        assert main(arguments(output)) == 1
        assert "holds something else than results" in capsys.readouterr().err
    (tmp_path / "notes.txt").rename(tmp_path / ".table.json.77.partial")  # of a run that was killed
    assert main(arguments(tmp_path, "--report-only")) == 0
