"""Significant digits and percentiles."""

from __future__ import annotations

from benchmarks.figures.rounding import percentiles, rounded


def test_digits_are_significant() -> None:
    assert [rounded(value) for value in (123456.0, 0.000123456, 0.0)] == [123500, 0.0001235, 0]
    assert rounded(2 / 3, 2) == 0.67


def test_percentiles_are_between_values_or_values() -> None:
    assert percentiles([1.0, 2.0]) == {"p50": 1.5, "p95": 1.95, "p99": 1.99}
    assert percentiles([1.0, 2.0], (50,), "higher") == {"p50": 2}
