"""All that may stop `bitheads train-encoder`, and how it goes on."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from multitask_runs import STEPS, Arguments, assert_same, at_line, interrupted, record_of

from bitheads.export.source.encoder import load_encoder
from bitheads.training.multitask import step as multitask_step
from bitheads.training.multitask.__main__ import main
from bitheads.training.multitask.train import RUN

KILL_OFTEN = Path(__file__).parent / "kill_often.py"


@pytest.mark.long
def test_killed_at_any_moment(finished: Path, arguments: Arguments, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(KILL_OFTEN), "1", str(STEPS), *arguments(output, "--resume")],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) >= 6
    assert done.stderr.count("resuming from step") >= 4
    assert_same(output, finished)


def test_interrupt_says_where_it_goes_on(
    finished: Path,
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    lines = interrupted(monkeypatch, arguments(output))
    assert "The checkpoint of step 9 is whole: --resume goes on from there" in lines[-1]
    assert "Traceback" not in capsys.readouterr().err
    kept = sorted(path.name for path in (output / RUN).iterdir())
    assert kept == ["step-00000006", "step-00000009"]
    load_encoder(str(output / RUN / "step-00000009"))  # a checkpoint is an encoder, too

    assert main(arguments(output)) == 1
    assert "holds a run. Pass --resume" in capsys.readouterr().err
    assert main(arguments(output, "--resume")) == 0
    assert_same(output, finished)


def test_interrupt_before_the_first_checkpoint(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = interrupted(monkeypatch, arguments(tmp_path / "out"), at="step 1/")
    assert "No checkpoint was written yet: --resume starts from the beginning" in lines[-1]


def test_a_damaged_checkpoint_is_passed_over(
    finished: Path, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    interrupted(monkeypatch, arguments(output))
    damaged = output / RUN / "step-00000009" / "optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with at_line(monkeypatch, "never", lambda: None) as lines:
        assert main(arguments(output, "--resume")) == 0
    assert any("optimizer.safetensors: is not what was written" in line for line in lines)
    assert any(line.startswith("resuming from step 6") for line in lines)
    assert_same(output, finished)


def test_another_configuration_or_data(
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    command = arguments(output)
    interrupted(monkeypatch, command)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    assert main(arguments(output, "--resume", learning_rate=0.1, seed=5)) == 1
    error = capsys.readouterr().err
    assert "config.learning_rate (got 0.1, the checkpoint has 0.0003)" in error
    assert "config.seed (got 5, the checkpoint has 0)" in error
    assert "config.steps" not in error

    data = tmp_path / "data"
    shutil.copytree(command[command.index("--data") + 1], data)
    with (data / "topics" / "dev.tsv").open("a") as file:
        file.write("\nfood\tMore soup.")
    assert main([*arguments(output, "--resume"), "--data", str(data)]) == 1
    error = capsys.readouterr().err
    assert "tasks.topics.dev.sha256" in error
    assert "tasks.topics.dev.rows (got 41, the checkpoint has 40)" in error
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_loss_that_is_not_finite(
    finished: Path,
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    factor = multitask_step.learning_rate_factor
    with monkeypatch.context() as patch:
        patch.setattr(
            multitask_step,
            "learning_rate_factor",
            lambda number, config: 1e35 if number == 7 else factor(number, config),
        )
        assert main(arguments(output)) == 1
    error = capsys.readouterr().err
    assert "step 8, task paraphrase: the loss is nan. Lower the learning rates" in error
    assert "The checkpoint of step 6 is whole" in error
    assert main(arguments(output, "--resume")) == 0
    assert_same(output, finished)


@pytest.mark.parametrize("limit_bytes", [1000, 400_000])
def test_full_disk(
    limit_bytes: int,
    finished: Path,
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No file may grow past a limit: the log or the weights."""
    output = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))

    try:
        with at_line(monkeypatch, "step 10: dev", fill):
            assert main(arguments(output)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert "Make room there. The checkpoint of step 9 is whole" in error
    assert not list((output / RUN).glob(".*"))
    assert main(arguments(output, "--resume")) == 0
    assert_same(output, finished)


def test_outputs_that_are_refused(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for output in (mine, mine / "notes.txt"):
        assert main(arguments(output, "--force")) == 1
        assert "holds something else than a run" in capsys.readouterr().err
    assert main(arguments(mine / "notes.txt" / "out")) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert (mine / "notes.txt").read_text() == "mine"


def test_an_encoder_is_not_replaced_by_what_comes_of_it(
    finished: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint may be the encoder of another run, but that run needs another folder."""
    before = record_of(finished)
    assert main(arguments(finished, "--force", encoder=str(finished))) == 1
    assert "the encoder training starts from, and would replace it" in capsys.readouterr().err
    assert record_of(finished) == before


def test_force_removes_nothing_before_the_new_run_can_start(
    finished: Path, arguments: Arguments
) -> None:
    before = record_of(finished)
    assert main(arguments(finished, "--force", encoder="absent/encoder")) == 1
    assert record_of(finished) == before


def test_one_process_at_a_time(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    descriptor = os.open(output, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert main(arguments(output)) == 1
    os.close(descriptor)
    assert "another process trains there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "changed", "message"),
    [
        (("--config", "absent.toml"), {}, "absent.toml: cannot be read"),
        (("--data", "absent"), {}, "absent: cannot be read"),
        (("--device", "quantum"), {}, "--device: 'quantum' cannot be used here"),
        ((), {"encoder": "absent/encoder"}, "encoder 'absent/encoder': found no model there"),
        ((), {"tasks": ["absent"]}, "has no task 'absent'"),
        ((), {"max_length": 100}, "max_length: got 100, expected 5 to 64"),
        ((), {"batchsize": 3}, "got the unknown keys batchsize"),
    ],
)
def test_errors(
    arguments: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    changed: dict[str, Any],
    message: str,
) -> None:
    assert main(arguments(tmp_path / "out", *options, **changed)) == 1
    assert message in capsys.readouterr().err
