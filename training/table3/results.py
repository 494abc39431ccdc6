"""The result files of a grid: one per cell, written whole or not at all.

    cells/<method>/<task>/<name>.json
    {"format_version": 1, "identity": {...}, "result": {...}, "made_with": {...}}

The identity is all that the result follows from. A file of another identity is an error, so that
no table mixes configurations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitheads.engine.files.whole_file import write_whole
from bitheads.training.errors import CheckpointError
from bitheads.training.multitask.checkpoint import differences

FORMAT_VERSION = 1

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One figure of the table.

    Attributes:
        method: such as `frozen` or `single_task`.
        name: what tells it from the method's other cells of the task: recipe and seed.
    """

    method: str
    task: str
    name: str

    def __str__(self) -> str:
        return f"{self.method} {self.task} {self.name}"


class Results:
    """The cells under a folder.

    Args:
        replace: whether files of another identity are as good as none.
    """

    def __init__(self, folder: Path, replace: bool = False) -> None:
        self._folder = folder
        self._replace = replace

    def path(self, cell: Cell) -> Path:
        return self._folder / cell.method / cell.task / f"{cell.name.replace('/', '.')}.json"

    def read(self, cell: Cell, identity: Json) -> dict[str, Any] | None:
        """The cell's result, None if there is none yet.

        Raises CheckpointError for a file of another identity, or one that cannot be read.
        """
        path = self.path(cell)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {record['format_version']}")
            stored, result = record["identity"], dict(record["result"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error!r}). Remove it: the cell is computed again."
            ) from error
        if lines := differences(json.loads(json.dumps(identity)), stored):
            if self._replace:
                return None
            raise CheckpointError(
                f"{path}: is a result of another configuration or other data: "
                f"{'; '.join(lines).replace('the checkpoint has', 'the file has')}. Choose another "
                "--output, make them the same, or pass --force to compute such cells again."
            )
        return result

    def write(self, cell: Cell, identity: Json, result: Json, made_with: Json) -> None:
        """Raises CheckpointError if the file cannot be written."""
        record = {
            "format_version": FORMAT_VERSION,
            "identity": identity,
            "result": result,
            "made_with": made_with,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        write_json(self.path(cell), text)


def write_json(path: Path, text: str) -> None:
    """Writes a file whole. Raises CheckpointError if it cannot be written."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}). Make room there, and run it again: "
            "what is done stays done."
        ) from error
