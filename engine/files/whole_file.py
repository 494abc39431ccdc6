"""Writing files so that no reader ever sees half of one, and that they outlast a crash.

A file is on disk once it is flushed there, and its name once its folder is: a rename, a removal
and a new folder are entries of the folder that they are in.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import Any

FILE_MODE = 0o666
"""Mode of a new file, less what the process's umask takes away."""


def write_whole(path: Path, data: Any, mode: int = FILE_MODE) -> None:
    """Writes the file aside, flushes it to disk, then renames it to its name, and flushes that.

    Whatever happens, `path` holds what it held before or all of `data`, and nothing is left
    beside it. Once this returns, it outlasts a crash. Makes the folder. Raises OSError.

    Args:
        mode: who may read and write it, less what the process's umask takes away.
    """
    with open_whole(path, mode) as file:
        file.write(data)


@contextmanager
def open_whole(path: Path, mode: int = FILE_MODE) -> Iterator[BufferedRandom]:
    """`write_whole` of what the block writes; an error in it leaves all as it was."""
    make_folder(path.parent)
    # Not by the process's number alone: in two containers it may be the same, and so the folder.
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with open(aside, "x+b", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink()


def remove(path: Path) -> None:
    """Removes a file, if it is there: no crash brings it back. Raises OSError."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def rename(source: Path, target: Path) -> None:
    """Gives what is on disk another name in the same folder, for good. Raises OSError.

    A file that has the name is replaced; an empty folder, too, by a folder.
    """
    source.replace(target)
    sync(target.parent)


def make_folder(path: Path) -> None:
    """Makes a folder and those it lies in, unless they are there. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync_tree(folder: Path) -> None:
    """Brings all that a folder has to the disk. Raises OSError."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: str | Path) -> None:
    """Brings a file, or which files a folder has, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some filesystems have no such thing for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not Path(path).is_dir():
            raise
    finally:
        os.close(descriptor)
