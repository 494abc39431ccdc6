"""What a run of `bitheads train-encoder` wrote, and one that is disturbed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bitheads.training.multitask import __main__ as multitask
from bitheads.training.multitask.__main__ import main
from bitheads.training.multitask.train import LOG, RUN

STEPS = 30
Arguments = Callable[..., list[str]]


def log_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / LOG).read_text().splitlines()]


def record_of(output: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((output / "multitask.json").read_text(encoding="utf-8"))
    return record


def assert_same(output: Path, expected: Path) -> None:
    """The same losses, accuracies and weights, to the bit."""
    assert (output / LOG).read_bytes() == (expected / LOG).read_bytes()
    assert record_of(output) == record_of(expected)
    assert not (output / RUN).exists()
    names = {path.name for path in output.iterdir()}
    assert names == {path.name for path in expected.iterdir()}
    for name in names:
        assert (output / name).read_bytes() == (expected / name).read_bytes(), name


@contextmanager
def at_line(
    monkeypatch: pytest.MonkeyPatch, start: str, act: Callable[[], object]
) -> Iterator[list[str]]:
    """Acts once a line that starts so is said; yields all lines that are said."""
    lines: list[str] = []

    def say(message: str) -> None:
        lines.append(message)
        if message.startswith(start):
            act()

    with monkeypatch.context() as patch:
        patch.setattr(multitask, "say", say)
        yield lines


def interrupted(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], at: str = "step 10: dev"
) -> list[str]:
    """Ctrl-C once a line is said; what was said."""
    with at_line(monkeypatch, at, lambda: signal.raise_signal(signal.SIGINT)) as lines:
        assert main(arguments) == 130
    return lines
