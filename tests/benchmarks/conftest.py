"""What several benchmarks' tests need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from random_heads import random_head

from benchmarks import record
from bitheads import Engine
from bitheads.engine.heads.head_file import write_head


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which results are stored."""
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(record, "RESULTS", folder)
    return folder


@pytest.fixture
def head_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """With one head."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    with Engine.load(folder, backend="onnxruntime") as engine:
        write_head(random_head(engine.spec), folder / "heads" / "task.safetensors")
    return folder
