"""Figures for people."""

from __future__ import annotations

from benchmarks.pages.markdown import duration, size, table


def test_sizes_and_times_for_people() -> None:
    assert [size(n) for n in (8, 6400, 2_457_600, 3e9)] == ["8 B", "6.4 KB", "2.46 MB", "3 GB"]
    assert [duration(us) for us in (12.34, 4560, 2e6)] == ["12.3 us", "4.56 ms", "2 s"]


def test_a_table() -> None:
    assert table(["a", "", "b"], [["x", "y", "1"], ["z", "", "2"]], left=2) == [
        "| a | | b |",
        "|---|---|---:|",
        "| x | y | 1 |",
        "| z |  | 2 |",
    ]
