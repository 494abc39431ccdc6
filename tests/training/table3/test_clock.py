"""How long the rest of a grid takes, by kind of work."""

from __future__ import annotations

from collections import Counter

import pytest

from bitheads.training.table3 import clock
from bitheads.training.table3.clock import Clock


def test_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    lines: list[str] = []
    watch = Clock(Counter(heads=5, encoders=2), lines.append)
    watch.skip("heads", 2)
    with watch.timing("heads") as seconds:
        now[0] += 1
        with watch.timing("encoders"):
            now[0] += 60
        now[0] += 2
        assert seconds() == 3  # without the encoder it needed
    watch.say("done")
    assert lines == ["done; 1 encoders, 2 heads to go, 1 min 06 s left"]
    assert watch.seconds_each() == {"encoders": 60, "heads": 3}
    fresh = Clock(Counter(heads=1, students=1), lines.append)
    assert fresh.left() == "1 heads, 1 students to go"
    with fresh.timing("heads"):
        now[0] += 1
    assert fresh.left() == "1 students to go"
    fresh.skip("students")
    assert fresh.left() == "nothing left"
