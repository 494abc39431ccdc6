"""Heads that come and go while the server runs."""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from bitheads.engine.engine import Engine
from bitheads.engine.errors import BitheadsError, HeadError, KeepError
from bitheads.engine.files.whole_file import make_folder, remove, write_whole
from bitheads.engine.heads.head_file import SUFFIX


class HeadStore:
    """Changes an engine's heads; keeps those that were uploaded in a folder, if there is one."""

    def __init__(self, engine: Engine, folder: Path | None) -> None:
        """Loads the heads in the folder, in place of the bundle's of the same name.

        Raises HeadError or SpecMismatchError for one that is not sound.
        """
        self._engine = engine
        self._folder = folder
        self._lock = threading.Lock()
        if folder is not None:
            try:
                make_folder(folder)
            except OSError as error:
                raise HeadError(f"--heads {folder}: cannot be made ({error}).") from error
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                engine.add_head(path, replace=True)

    def put(self, name: str, content: bytes) -> None:
        """Loads a head file; requests that came before end with the head they began with.

        Where heads are kept, it is on disk once this returns.

        Raises HeadError if it is not a sound head file or is of another task, SpecMismatchError if
        it was trained on another feature spec, KeepError if it cannot be kept.
        """
        with self._lock, ExitStack() as stack:
            try:
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="bitheads-"))
                path = Path(scratch) / f"{name}{SUFFIX}"
                path.write_bytes(content)
            except OSError as error:
                raise KeepError(
                    f"head {name!r}: cannot be read, as no temporary folder can be had ({error}). "
                    "Free some space there, or set TMPDIR."
                ) from error
            try:
                head = self._engine.read_head(path)
                if head.task != name:
                    raise HeadError(
                        f"got a head of task {head.task!r} for /v1/tasks/{name}. Send it to "
                        f"/v1/tasks/{head.task}."
                    )
                if self._folder is not None:
                    write_whole(self._folder / path.name, content)
                self._engine.use_head(head, replace=True)
            except OSError as error:
                raise KeepError(
                    f"head {name!r}: cannot be kept ({error}). Free some space in the folder of "
                    "--heads, or let the server write there."
                ) from error
            except BitheadsError as error:
                # Of the scratch file nobody knows.
                raise type(error)(str(error).replace(str(path), name)) from error

    def delete(self, name: str) -> None:
        """Forgets a head, and its file if it was uploaded, for good.

        Raises UnknownTaskError, and KeepError if the file cannot be removed: the head then stays.
        """
        with self._lock:
            self._engine.choose_heads([name])
            if self._folder is not None:
                try:
                    remove(self._folder / f"{name}{SUFFIX}")
                except OSError as error:
                    raise KeepError(
                        f"head {name!r}: cannot be removed ({error}). Let the server write to the "
                        "folder of --heads."
                    ) from error
            self._engine.remove_head(name)
