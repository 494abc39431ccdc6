"""Heads that come and go while a server runs: those of its process, and where they are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError, HeadError, KeepError
from bitheads.engine.files.whole_file import make_folder, remove, write_whole
from bitheads.engine.heads.head import Head
from bitheads.engine.heads.head_file import SUFFIX


class HeadFolder:
    """Where a server keeps the heads that were uploaded; nowhere, if there is no folder."""

    def __init__(self, folder: Path | None) -> None:
        """Raises HeadError if the folder cannot be made."""
        self._folder = folder
        if folder is not None:
            try:
                make_folder(folder)
            except OSError as error:
                raise HeadError(f"--heads {folder}: cannot be made ({error}).") from error

    def load_into(self, engine: Engine) -> None:
        """Loads its heads in place of the engine's of the same name.

        Raises HeadError or SpecMismatchError for one that is not sound.
        """
        if self._folder is not None:
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                engine.add_head(path, replace=True)

    def keep(self, name: str, content: bytes) -> None:
        """It is on disk once this returns. Raises KeepError if it cannot be kept."""
        if self._folder is not None:
            try:
                write_whole(self._folder / f"{name}{SUFFIX}", content)
            except OSError as error:
                raise KeepError(
                    f"head {name!r}: cannot be kept ({error}). Free some space in the folder of "
                    "--heads, or let the server write there."
                ) from error

    def remove(self, name: str) -> None:
        """Raises KeepError if its file cannot be removed."""
        if self._folder is not None:
            try:
                remove(self._folder / f"{name}{SUFFIX}")
            except OSError as error:
                raise KeepError(
                    f"head {name!r}: cannot be removed ({error}). Let the server write to the "
                    "folder of --heads."
                ) from error


@contextmanager
def scratch_file(name: str, content: bytes) -> Iterator[Path]:
    """A file of the content until the block ends: processes that read it need no copy of their own.

    Raises KeepError if there is no room for it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="bitheads-") as scratch:
            path = Path(scratch) / f"{name}{SUFFIX}"
            path.write_bytes(content)
            yield path
    except OSError as error:
        raise KeepError(
            f"head {name!r}: cannot be read, as no temporary folder can be had ({error}). "
            "Free some space there, or set TMPDIR."
        ) from error


def read_head(engine: Engine, name: str, path: Path) -> Head:
    """A head of a scratch file, for `engine.use_head`.

    Raises HeadError if it is not a sound head file or is of another task, SpecMismatchError if
    it was trained on another feature spec.
    """
    try:
        head = engine.read_head(path)
    except BitheadsError as error:
        # Of the scratch file nobody knows.
        raise type(error)(str(error).replace(str(path), name)) from error
    if head.task != name:
        raise HeadError(
            f"got a head of task {head.task!r} for /v1/tasks/{name}. Send it to "
            f"/v1/tasks/{head.task}."
        )
    return head
