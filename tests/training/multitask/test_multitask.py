"""`bitheads train-encoder` from a configuration to a bundle, and all that may stop it."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from bitheads import Engine
from bitheads.export import build
from bitheads.export.source.encoder import load_encoder
from bitheads.training.multitask import __main__ as multitask
from bitheads.training.multitask import step as multitask_step
from bitheads.training.multitask.__main__ import main
from bitheads.training.multitask.train import LOG, RUN

KILL_OFTEN = Path(__file__).parent / "kill_often.py"
STEPS = 30
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 8,
    "tasks": ["paraphrase", "topics"],
    "learning_rate": 3e-4,
    "head_learning_rate": 1e-3,
    "evaluate_every": 10,
    "checkpoint_every": 3,
}

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="module")
def arguments(
    tiny_encoder: Callable[[str], Path],
    task_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Arguments:
    """(output, options, changed settings) -> arguments of the command."""

    def make(output: Path, *options: str, **changed: Any) -> list[str]:
        settings = {"encoder": str(tiny_encoder("bert")), **SETTINGS, **changed}
        config = tmp_path_factory.mktemp("config") / "config.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        config.write_text("\n".join(lines), encoding="utf-8")
        required = ["--config", str(config), "--data", str(task_folder), "--device", "cpu"]
        return [*required, "--output", str(output), *options]

    return make


@pytest.fixture(scope="module")
def finished(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed; not to be written to."""
    output = tmp_path_factory.mktemp("finished") / "tiny-multitask"
    assert main(arguments(output)) == 0
    return output


def log_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / LOG).read_text().splitlines()]


def record_of(output: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((output / "multitask.json").read_text(encoding="utf-8"))
    return record


def assert_same(output: Path, expected: Path) -> None:
    """The same losses, accuracies and weights, to the bit."""
    assert (output / LOG).read_bytes() == (expected / LOG).read_bytes()
    assert record_of(output) == record_of(expected)
    assert not (output / RUN).exists()
    names = {path.name for path in output.iterdir()}
    assert names == {path.name for path in expected.iterdir()}
    for name in names:
        assert (output / name).read_bytes() == (expected / name).read_bytes(), name


@contextmanager
def at_line(
    monkeypatch: pytest.MonkeyPatch, start: str, act: Callable[[], object]
) -> Iterator[list[str]]:
    """Acts once a line that starts so is said; yields all lines that are said."""
    lines: list[str] = []

    def say(message: str) -> None:
        lines.append(message)
        if message.startswith(start):
            act()

    with monkeypatch.context() as patch:
        patch.setattr(multitask, "say", say)
        yield lines


def interrupted(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], at: str = "step 10: dev"
) -> list[str]:
    """Ctrl-C once a line is said; what was said."""
    with at_line(monkeypatch, at, lambda: signal.raise_signal(signal.SIGINT)) as lines:
        assert main(arguments) == 130
    return lines


def test_log_and_record(finished: Path) -> None:
    log, record = log_of(finished), record_of(finished)
    for task in ("paraphrase", "topics"):
        entries = [entry for entry in log if entry["task"] == task]
        losses = [entry for entry in entries if "loss" in entry]
        assert [entry["step"] for entry in losses] == list(range(1, STEPS + 1))
        dev = [entry for entry in entries if "dev_accuracy" in entry]
        assert [entry["step"] for entry in dev] == [0, 10, 20, 30]
        assert record["dev"][task]["accuracy"] == dev[-1]["dev_accuracy"]
    assert len(log) == 2 * (STEPS + 4)
    assert record["step"] == STEPS
    assert list(record["tasks"]) == ["paraphrase", "topics"]
    assert record["loss_weights"]["topics"] == pytest.approx(200**0.1 / (200**0.1 + 40**0.1))


def test_a_real_encoder_learns(arguments: Arguments, tmp_path: Path) -> None:
    output = tmp_path / "out"
    settings = {"encoder": "all-MiniLM-L6-v2", "position_pooling": "mean", "warmup": 0.0}
    often = {"evaluate_every": 100, "checkpoint_every": 100}
    assert main(arguments(output, steps=12, tasks=["topics"], **settings, **often)) == 0
    dev_before, *losses, dev_after = log_of(output)
    assert losses[0]["loss"] > 1.2
    assert losses[-1]["loss"] < 0.8
    assert dev_before["dev_accuracy"] < 0.6
    assert dev_after["dev_accuracy"] >= 0.9


def test_becomes_a_bundle(finished: Path, few_texts: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    command = ["--encoder", str(finished), "--output", str(bundle), "--precision", "fp32"]
    assert build.main([*command, "--calibration", str(few_texts)]) == 0
    engine = Engine.load(bundle, backend="onnxruntime")
    trained = load_encoder(str(finished))
    assert engine.spec.weights_sha256 == trained.weights_sha256
    assert engine.spec.weights_sha256 != record_of(finished)["base"]["weights_sha256"]
    assert engine.spec.encoder == "tiny-multitask"
    assert len(engine.encode(["a text", ("a", "pair")])) == 2


def test_heads_are_kept(finished: Path) -> None:
    heads = load_file(finished / "heads.safetensors")
    assert {name.split("/")[0] for name in heads} == {"paraphrase", "topics"}
    assert heads["topics/output.weight"].shape == (4, 64)


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


def test_finished_runs(
    finished: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    assert main(arguments(output)) == 1
    assert "holds a run. Pass --resume to go on with it, --force" in capsys.readouterr().err
    assert main(arguments(output, "--resume", "--json")) == 0
    printed = capsys.readouterr()
    assert "nothing is left to do" in printed.err
    assert json.loads(printed.out)["dev"] == record_of(finished)["dev"]
    assert main(arguments(output, "--resume", seed=1)) == 1
    assert_same(output, finished)
    assert main(arguments(output, "--force", steps=2)) == 0
    assert record_of(output)["step"] == 2
    assert len(log_of(output)) == 2 * (2 + 2)


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


def test_sizes_of_tasks_that_are_left_out(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One configuration serves every choice of tasks, but a misspelt one is found."""
    command = arguments(tmp_path / "out", steps=1)
    config = Path(command[1])
    text = config.read_text()
    config.write_text(f"{text}\n[sizes]\nsport = 5\ntopics = 40\n")
    assert main(command) == 0
    assert record_of(tmp_path / "out")["loss_weights"] == {"paraphrase": 0.5, "topics": 0.5}
    config.write_text(f"{text}\n[sizes]\ntopcis = 5\n")
    assert main([*command, "--force"]) == 1
    assert "has no task 'topcis', for which sizes has something" in capsys.readouterr().err
