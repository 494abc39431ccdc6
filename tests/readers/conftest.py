"""A store and answers that several programs read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from head_kinds import heads_of_every_kind
from written_store import TEXTS, Written

from bitheads import Engine
from bitheads.engine.features.embedding import PRECISIONS
from bitheads.engine.heads.head_file import write_head


@pytest.fixture(scope="session")
def written(build_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Not to be written to."""
    folder = tmp_path_factory.mktemp("readers")
    bundle = Path(shutil.copytree(build_bundle("bert", embedding="mean"), folder / "bundle"))
    with Engine.load(bundle, "onnxruntime") as engine:
        for head in heads_of_every_kind(engine, TEXTS[:40], ("single",)):
            write_head(head, bundle / "heads" / f"{head.task}.safetensors")
    made = Written(folder, bundle)
    texts = {f"text-{i}": text for i, text in enumerate(TEXTS)}
    half = len(texts) // 2
    for part in (dict([*texts.items()][:half]), texts):  # two parts
        made.encode("features", part, "--spans", "--embeddings", "float32")
    for precision in PRECISIONS[1:]:
        made.encode(precision, dict([*texts.items()][:20]), "--embeddings", precision)
    made.backfill("features", "answers")
    return made


@pytest.fixture
def own(written: Written, tmp_path: Path) -> Written:
    """A copy that a test may spoil."""
    folder = Path(shutil.copytree(written.folder, tmp_path / "readers"))
    return Written(folder, folder / "bundle")
