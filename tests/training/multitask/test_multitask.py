"""`bitheads train-encoder` from a configuration to a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from multitask_runs import STEPS, Arguments, assert_same, log_of, record_of
from safetensors.numpy import load_file

from bitheads import Engine
from bitheads.export import build
from bitheads.export.source.encoder import load_encoder
from bitheads.training.multitask.__main__ import main


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


@pytest.mark.long
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
