"""A run of `bitheads train-encoder` that takes seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from multitask_runs import STEPS, Arguments

from bitheads.training.multitask.__main__ import main

SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 8,
    "tasks": ["paraphrase", "topics"],
    "learning_rate": 3e-4,
    "head_learning_rate": 1e-3,
    "evaluate_every": 10,
    "checkpoint_every": 3,
}


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def finished(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed; not to be written to."""
    output = tmp_path_factory.mktemp("finished") / "tiny-multitask"
    assert main(arguments(output)) == 0
    return output
