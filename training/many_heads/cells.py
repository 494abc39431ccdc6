"""What is known of a task, one file each: a head's answers, a linear model's, a learning curve's.

    cells/<task>/<name>.safetensors    arrays, and `record` in the header, JSON: its identity, and
                                       numbers and words

The identity is all that the result follows from; a file of another identity counts as none, and is
replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bitheads.engine.files.whole_file import write_whole
from bitheads.training.errors import TrainingError

FORMAT_VERSION = 1

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Result:
    """What a cell holds: numbers and words as JSON has them, and arrays."""

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


class Cells:
    """The cells under a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, task: str, name: str) -> Path:
        return self._folder / task / f"{name}.safetensors"

    def read(self, task: str, name: str, identity: Json) -> Result | None:
        """None if there is none, or one of another identity, or a damaged one."""
        try:
            with safe_open(self.path(task, name), framework="numpy") as file:
                record = json.loads(file.metadata()["record"])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        if record != json.loads(_dumps(identity, record.get("result"))):
            return None
        return Result(record["result"], arrays)

    def write(self, task: str, name: str, identity: Json, result: Result) -> None:
        """Raises TrainingError if the file cannot be written."""
        record = _dumps(identity, result.values)
        arrays = {key: np.ascontiguousarray(array) for key, array in result.arrays.items()}
        write(self.path(task, name), save(arrays, metadata={"record": record}))


def write(path: Path, data: Any) -> None:
    """Writes a file whole. Raises TrainingError if it cannot be written."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written ({error.strerror}). Make room there, and run it again: "
            "what is done stays done."
        ) from error


def _dumps(identity: Json, result: Any) -> str:
    record = {"format_version": FORMAT_VERSION, "identity": identity, "result": result}
    return json.dumps(record)
