"""Writing files so that no reader ever sees half of one, and that they outlast a crash."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: Any) -> None:
    """Writes the file aside, flushes it to disk, then renames it to its name.

    Whatever happens, `path` holds what it held before or all of `data`, and nothing is left
    beside it. Makes the folder. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink()


def sync(path: str | Path) -> None:
    """Brings a file, or which files a folder has, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
