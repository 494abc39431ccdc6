"""Checkpoints on disk; how runs use them is in test_multitask.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from durable import watched_disk

from bitheads.export.source.encoder import load_encoder
from bitheads.training.errors import CheckpointError
from bitheads.training.multitask.checkpoint import (
    RECORD,
    differences,
    last_checkpoint,
    publish,
    read_record,
    remove_old,
    restore,
    write_checkpoint,
)
from bitheads.training.multitask.config import MultitaskConfig
from bitheads.training.multitask.model import MultitaskModel
from bitheads.training.multitask.run_log import RunLog

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_encoder: Callable[[str], Path]) -> MultitaskModel:
    """A model with a task whose name has all that a name may have."""
    encoder = load_encoder(str(tiny_encoder("bert")))
    return MultitaskModel(encoder, {"a.task-2_b": 3}, MultitaskConfig(), CPU)


def optimizer_after_a_step(model: MultitaskModel) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters().values(), lr=1e-3, fused=True)
    for parameter in model.parameters().values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def test_round_trip(model: MultitaskModel, tmp_path: Path) -> None:
    optimizer = optimizer_after_a_step(model)
    written = write_checkpoint(tmp_path / "step-1", {"step": 1}, model, optimizer)
    found = last_checkpoint(tmp_path, print)
    assert found is not None
    assert (found.step, found.record) == (1, written.record)

    assert len({path.stat().st_mode for path in found.folder.iterdir()}) == 1

    encoder = load_encoder(str(found.folder))
    again = MultitaskModel(encoder, {"a.task-2_b": 3}, MultitaskConfig(seed=1), CPU)
    other = torch.optim.AdamW(again.parameters().values(), lr=1e-3, fused=True)
    restore(found, again, other)
    for (name, one), two in zip(
        model.parameters().items(), again.parameters().values(), strict=True
    ):
        assert torch.equal(one, two), name
        for key, value in optimizer.state[one].items():
            assert torch.equal(value, other.state[two][key]), name


def test_nothing_is_unpickled(model: MultitaskModel, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "step-1", {"step": 1}, model, None).folder
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_weights_that_are_not_finite_are_not_written(model: MultitaskModel, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.encoder.model.parameters())[0, 0] = torch.inf
    with pytest.raises(CheckpointError, match=r"encoder/.* is not finite, so nothing was written"):
        write_checkpoint(tmp_path / "step-1", {"step": 1}, model, None)
    assert not list(tmp_path.iterdir())


def test_the_last_two_are_kept(model: MultitaskModel, tmp_path: Path) -> None:
    for step in (9, 10, 11):
        write_checkpoint(tmp_path / f"step-{step:08d}", {"step": step}, model, None)
    (tmp_path / ".step-00000012.partial").mkdir()
    remove_old(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda record: record.pop("files"), "cannot be read"),
        (lambda record: record["files"].update({"absent": "0"}), "cannot be read"),
        (lambda record: record["files"].update({"config.json": "0"}), "is not what was written"),
        (lambda record: record.update(format_version=2), "got format version 2, expected 1"),
    ],
)
def test_damaged(
    spoil: Callable[[dict[str, Any]], object],
    message: str,
    model: MultitaskModel,
    tmp_path: Path,
) -> None:
    folder = write_checkpoint(tmp_path / "step-1", {"step": 1}, model, None).folder
    record = json.loads((folder / RECORD).read_text())
    spoil(record)
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=message):
        read_record(folder)
    said: list[str] = []
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole\. Start over with --force"):
        last_checkpoint(tmp_path, said.append)
    assert message in said[0]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path, print) is None


def test_written_over_what_a_killed_run_left(model: MultitaskModel, tmp_path: Path) -> None:
    for name in ("finished", ".finished.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    written = write_checkpoint(tmp_path / "finished", {"step": 1}, model, None)
    assert not (written.folder / "half").exists()
    output = tmp_path / "output"
    output.mkdir()
    (output / "config.json").write_text("old")
    publish(written.folder, output)
    assert read_record(output) == written.record
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_a_checkpoint_and_what_is_published_outlast_a_crash(
    model: MultitaskModel, tmp_path: Path
) -> None:
    with watched_disk(tmp_path) as disk:
        written = write_checkpoint(tmp_path / "output" / "run" / "finished", {}, model, None)
        disk.changed(tmp_path / "output" / "losses.jsonl")
        with RunLog(tmp_path / "output" / "losses.jsonl", 0) as log:
            log.write([{"step": 1}])
            log.flush()
        disk.check()
        publish(written.folder, tmp_path / "output")
    disk.check()


def test_differences() -> None:
    one = {"a": 1, "b": {"c": [1, 2], "d": None}}
    assert differences(one, one) == []
    assert differences(one, {"a": 2, "b": {"c": [1], "d": None}, "e": 3}) == [
        "a (got 1, the checkpoint has 2)",
        "b.c (got [1, 2], the checkpoint has [1])",
        "e (got None, the checkpoint has 3)",
    ]
