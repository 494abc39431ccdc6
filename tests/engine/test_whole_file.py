"""Files that are whole or not there, and that outlast a crash once they are said to be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from durable import watched_disk
from random_heads import random_head
from store_cases import fill, make_spec

from bitheads import Engine
from bitheads.engine.errors import KeepError
from bitheads.engine.files.whole_file import make_folder, remove, sync, write_whole
from bitheads.engine.heads.cpu import load_head
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.settings import Settings
from bitheads.engine.store import StoreWriter, compact


def write(folder: Path) -> None:
    write_whole(folder / "new" / "newer" / "file", b"content")


def replace(folder: Path) -> None:
    write_whole(folder / "file", b"before")
    write_whole(folder / "file", b"after")


def head(folder: Path) -> None:
    write_head(random_head(make_spec(), task="tone"), folder / "heads" / "tone.safetensors")


def store(folder: Path) -> None:
    found = fill(folder / "stores" / "store")
    with StoreWriter(found, "replace"):
        pass
    assert compact(found)


def answers(folder: Path) -> None:
    found = fill(folder / "store")
    heads = [TaskHead(load_head(random_head(make_spec(), task=t)), "0") for t in ("a", "b")]
    job = Backfill(found, heads, folder / "new" / "answers")
    with job.lock():
        assert job.run(job.prepare()) == 60


@pytest.mark.parametrize("run", [write, replace, head, store, answers])
def test_what_is_written_outlasts_a_crash(tmp_path: Path, run: Callable[[Path], None]) -> None:
    with watched_disk(tmp_path) as disk:
        run(tmp_path)
    disk.check()


def test_an_uploaded_head_outlasts_a_crash_and_a_deleted_one_stays_away(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_bundle, "onnxruntime")
    write_head(random_head(engine.spec, task="tone"), tmp_path / "tone.safetensors")
    content = (tmp_path / "tone.safetensors").read_bytes()
    folder = tmp_path / "kept" / "heads"
    with watched_disk(tmp_path) as disk:
        server = Server(engine, Settings(bundle=tiny_bundle, heads=folder, log="none"))
        server.whole.put_head("tone", content)
    disk.check()
    assert [path.name for path in folder.iterdir()] == ["tone.safetensors"]

    with monkeypatch.context() as patch:  # root may remove what others may not
        patch.setattr(os, "unlink", fail(OSError(errno.EROFS, "Read-only file system")))
        with pytest.raises(KeepError, match=r"head 'tone': cannot be removed .*Read-only"):
            server.whole.delete_head("tone")
    assert "tone" in engine.tasks, "what would come back is not said to be gone"
    with watched_disk(tmp_path) as disk:
        disk.changed(folder / "tone.safetensors")
        server.whole.delete_head("tone")
    assert not disk.unnamed
    assert "tone" not in engine.tasks
    assert not list(folder.iterdir())
    server.close()


def fail(error: Exception) -> Callable[..., None]:
    def failing(*_: object, **__: object) -> None:
        raise error

    return failing


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"before")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail(OSError(errno.ENOSPC, "No space left on device")))
            with pytest.raises(OSError, match="No space left"):
                write_whole(path, b"after")
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]


def test_processes_of_one_number_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in two containers that share a folder."""
    seen: set[str] = set()
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.add(Path(source).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    for _ in range(2):
        write_whole(tmp_path / "file", b"")
    assert len(seen) == 2


def test_folders_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a filesystem has no such thing, what can be done is done; files have it everywhere."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    monkeypatch.setattr(os, "fsync", fail(OSError(errno.EINVAL, "Invalid argument")))
    make_folder(tmp_path / "new")
    remove(tmp_path / "absent")
    with pytest.raises(OSError, match="Invalid argument"):
        sync(path)
