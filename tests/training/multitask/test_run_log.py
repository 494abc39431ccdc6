"""The log, cut back and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitheads.training.errors import TrainingError
from bitheads.training.multitask.run_log import RunLog


def test_cut_back_to_what_the_checkpoint_knew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path, 0) as log:
        log.write([{"step": 1}])
        known = log.flush()
        log.write([{"step": 2}])
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')  # killed amid a line
    with RunLog(path, known) as log:
        log.write([{"step": 2}, {"step": 3}])
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_log_that_was_removed(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.jsonl", 1000) as log:
        log.write([{"step": 9}])
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 9}\n'


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """test_multitask.py has a full disk."""
    with pytest.raises(TrainingError, match=r"log.jsonl: cannot be written \(No such file"):
        RunLog(tmp_path / "absent" / "log.jsonl", 0)
