"""Lines with the time that is left."""

from __future__ import annotations

import pytest

from bitheads.training import progress
from bitheads.training.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_first_last_and_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    lines: list[str] = []
    bar = Progress(1000, 990, lines.append)  # resumed after step 990
    for number in range(991, 1001):
        now_s += 4
        bar.step(number, "loss 1")
    assert lines == [
        "step 991/1000: loss 1, 4.00 s per step, 36 s left",
        "step 994/1000: loss 1, 4.00 s per step, 24 s left",
        "step 997/1000: loss 1, 4.00 s per step, 12 s left",
        "step 1000/1000: loss 1, 4.00 s per step, 0 s left",
    ]
