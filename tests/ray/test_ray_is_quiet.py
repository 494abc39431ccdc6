"""A job on a cluster that is started here has it talk to this machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from watched import Watch


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder of a short name: sockets are in it, whose paths have 107 bytes at most."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.long
def test_a_job_on_this_machine(tiny_bundle: Path, tmp_path: Path, short: Path) -> None:
    """No usage statistics, no question to a cloud's metadata service."""
    (tmp_path / "texts.txt").write_text("a text\nanother text\n" * 4)
    watch, store = Watch(short), tmp_path / "store"
    given = ["--bundle", tiny_bundle, "--input", tmp_path / "texts.txt", "--store", store]
    printed = watch.run("-m", "bitheads", "encode", *given, "--runner", "ray", "--block-texts", "4")
    assert "stored 8 texts" in printed
    assert watch.connections() == set()
    # The key of the cluster's own connections.
    assert {path.name for path in watch.home.rglob("*")} <= {".ray", "auth_token"}
    assert watch.written(store, watch.home / ".ray") == set()
