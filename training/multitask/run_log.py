"""The log of a run: a JSON object per line, cut back to its checkpoint when the run is resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from bitheads.engine.files.whole_file import sync
from bitheads.training.errors import TrainingError


class RunLog:
    """Appends lines to a file; use as a context manager.

    Args:
        num_bytes: bytes of the file that are kept: what was logged when the checkpoint was written.

    Raises TrainingError, here and in its methods, if the file cannot be written.
    """

    def __init__(self, path: Path, num_bytes: int) -> None:
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
            self._file.truncate(min(num_bytes, path.stat().st_size))
            sync(path.parent)
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, entries: list[dict[str, Any]]) -> None:
        """Appends a line for each entry."""
        data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        try:
            while data:  # a full disk may take a part and refuse the rest
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> int:
        """Brings all lines to the disk; returns the file's size in bytes."""
        try:
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"{self._path}: cannot be written ({error.strerror}). Make room there."
        )
