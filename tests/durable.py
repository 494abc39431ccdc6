"""What a crash of the machine would leave of what was written: watches the system's calls.

A file's bytes are on disk once it was flushed, and a name (of a file, of a folder that was made, of
what was renamed or removed) once the folder that it is in was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """What happened, and what a crash now would undo.

    Attributes:
        unwritten: files that got their last name before their bytes were on disk.
        unnamed: folders with changed names that are not on disk.
        renames: how many there were.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.unwritten: list[Path] = []
        self.unnamed: set[Path] = set()
        self.renames = 0
        self._flushed: set[int] = set()

    def flushed(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        self._flushed.add(os.fstat(descriptor).st_ino)
        self.unnamed.discard(path)

    def changed(self, path: Any) -> None:
        """A name in a folder came, went or is another's."""
        folder = Path(path).absolute().parent.resolve()
        if folder.is_relative_to(self._root):
            self.unnamed.add(folder)

    def renamed(self, source: Any, target: Any) -> None:
        source = Path(source)
        files = [source] if source.is_file() else [f for f in source.rglob("*") if f.is_file()]
        self.unwritten += [f for f in files if f.stat().st_ino not in self._flushed]
        self.renames += 1
        self.changed(target)

    def check(self) -> None:
        """Nothing that was done would be undone."""
        assert self.renames, "nothing was renamed: is it watched?"
        assert not self.unwritten
        # A folder that was removed since holds no names.
        assert not {folder for folder in self.unnamed if folder.exists()}


@contextmanager
def watched_disk(root: Path) -> Iterator[Disk]:
    """What this process does in a folder, within the context."""
    disk = Disk(root)

    def before(name: str, tell: Callable[..., None]) -> None:
        call = getattr(os, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            if name != "mkdir" or not Path(arguments[0]).exists():
                tell(*arguments)
            return call(*arguments, **options)

        patch.setattr(os, name, watched)

    with pytest.MonkeyPatch.context() as patch:
        before("fsync", disk.flushed)
        before("rename", disk.renamed)
        before("replace", disk.renamed)
        before("mkdir", lambda path, *mode: disk.changed(path))
        yield disk
