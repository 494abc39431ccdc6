"""The file that says which rows of an input are no texts and were passed over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bitheads.engine.errors import InputError
from bitheads.engine.files.whole_file import open_whole
from bitheads.engine.texts.text_files import BadRow, OnBad
from bitheads.engine.texts.text_inputs import TextInput


class BadRows:
    """JSON lines of `file`, `row`, from 0 in its file, and `reason`.

    Attributes:
        count: rows so far.
    """

    def __init__(self, path: Path | None, file: BinaryIO | None) -> None:
        self.count = 0
        self._path, self._file = path, file

    def beside(self, bar: Any) -> OnBad:
        """Takes a row, and moves a progress bar on by it. Raises InputError."""

        def add(path: Any, row: BadRow) -> None:
            self.count += 1
            bar.update(1)
            if self._file is not None:
                line = {"file": str(path), "row": row.row, "reason": row.reason}
                with _told(self._path):
                    self._file.write(json.dumps(line).encode() + b"\n")

        return add


@contextmanager
def bad_rows_file(path: Path | None) -> Iterator[BadRows]:
    """Is there, with all rows of the run, once the block ends, and not if an error ends it: every
    run reads its whole input, so the run that goes on finds all of them.

    Args:
        path: None: they are counted alone.

    Raises InputError if it cannot be written.
    """
    if path is None:
        yield BadRows(None, None)
        return
    with ExitStack() as stack:
        with _told(path):
            file = stack.enter_context(open_whole(path))
        yield BadRows(path, file)
        with _told(path):
            stack.close()


def refuse_an_input(path: Path, texts: TextInput) -> None:
    """Raises InputError where the file would take the place of one of the input's."""
    target = os.path.realpath(path)
    for file in texts.files:
        if isinstance(file.path, Path) and os.path.realpath(file.path) == target:
            raise InputError(
                f"--bad-rows {path}: is a file of the input, expected one to write to. Name "
                "another."
            )


@contextmanager
def _told(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--bad-rows {path}: cannot be written ({error}). Name a file that may be written to."
        ) from error
