"""One process at a time in a folder that training writes to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitheads.engine.files.whole_file import make_folder
from bitheads.training.errors import TrainingError


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Makes the folder, and holds it; the system lets go of it however the process ends.

    Raises TrainingError if it cannot be made, or another process holds it.
    """
    try:
        make_folder(output)
        folder = os.open(output, os.O_RDONLY)
    except OSError as error:
        raise TrainingError(
            f"--output {output}: cannot be written ({error.strerror}). Choose another."
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TrainingError(
            f"--output {output}: another process trains there. Wait for it, or choose another."
        ) from error
    finally:
        os.close(folder)
