"""The table's figures and words, from results made up."""

from __future__ import annotations

import pytest

from bitheads.training.table3.report.patterns import Pattern, patterns
from bitheads.training.table3.report.row import Row
from bitheads.training.table3.report.table import Table


def row(section: str, name: str, **accuracies: list[float]) -> Row:
    results = {
        task: [
            {
                part: {"accuracy": value, "matthews": value / 2, "f1/yes": value / 4}
                for part in ("dev", "test")
            }
            for value in values
        ]
        for task, values in accuracies.items()
    }
    return Row(section, name, results, multiply_adds=5_000_000)


ROWS = (
    row("frozen", "last/cls/float", a=[0.5, 0.6], b=[0.7, 0.7]),
    row("frozen", "last/mean/float", a=[0.6, 0.7], b=[0.8, 0.8]),
    row("frozen", "mean-4/attention/float", a=[0.75], b=[0.9]),
    row("frozen", "mean-4/attention/uint8", a=[0.75], b=[0.9]),
    row("frozen", "mean-4/attention/sign", a=[0.73], b=[0.88]),
    row("leave one type out", "mean-4/attention/float", b=[0.5]),
    row("all tasks", "used as is", a=[0.9], b=[]),
)


def table(**changed: object) -> Table:
    values = {
        "tasks": ("a", "b"),
        "rows": ROWS,
        "matthews": ("b",),
        "f1": {"a": "yes"},
        "tokens": 50,
        "chosen_layers": {"frozen": 4},
        "senses": {},
    }
    return Table(**{**values, **changed})  # type: ignore[arg-type]


def test_markdown() -> None:
    lines = table().to_markdown().splitlines()
    assert lines[0].startswith("Test accuracy in percent, mean and standard deviation over seeds")
    assert "| **frozen** | | | | |" in lines
    assert "| last/cls/float | 55.0 ± 7.1 | 70.0 ± 0.0 | 62.50 ± 3.54 | 0.01 |" in lines
    assert "| mean-4/attention/float |  | 50.0 | 50.00 * | 0.01 |" in lines
    assert "| used as is | 90.0 |  |  | 0.01 |" in lines
    assert "| method | b Matthews | a F1 of yes |" in lines
    assert "| mean-4/attention/sign | 44.0 | 18.2 |" in lines
    assert "Word senses" not in table().to_markdown()


def test_json() -> None:
    first, *_, last = table().to_json()["rows"]
    assert first["average"] == pytest.approx([60, 65])
    assert first["gflops"] == 0.01
    assert first["matthews"] == {"b": pytest.approx([35, 35])}
    assert first["f1"] == {"a": pytest.approx([12.5, 15])}
    assert first["dev_accuracy"] == first["accuracy"]
    assert last["accuracy"] == {"a": [90]}
    assert last["average"] is None


def test_patterns() -> None:
    found = {pattern.question: pattern for pattern in patterns(ROWS, {"frozen": 4})}
    assert list(found) == [
        "mean over CLS, frozen",
        "uint8 beside float, frozen",
        "sign beside float, frozen",
    ]
    over_cls = found["mean over CLS, frozen"]
    assert (over_cls.points, over_cls.error) == pytest.approx((10, 0))
    assert (over_cls.tasks, over_cls.verdict) == (2, "shown")
    assert found["uint8 beside float, frozen"].verdict == "shown"
    assert found["sign beside float, frozen"].points == pytest.approx(-2)
    assert found["sign beside float, frozen"].verdict == "refuted"
    assert "| sign beside float, frozen | 2 | -2.00 ± 0.00 | >= -0.5 | refuted |" in (
        table().to_markdown()
    )


@pytest.mark.parametrize(
    ("points", "error", "verdict"),
    [(1, 0.4, "shown"), (1, 0.6, "rather so"), (-1, 0.6, "rather not"), (-1, 0.4, "refuted")],
)
def test_verdicts(points: float, error: float, verdict: str) -> None:
    assert Pattern("", points, error, 14, is_more=True, least=0).verdict == verdict
    assert Pattern("", points - 0.5, error, 14, is_more=False, least=-0.5).verdict == verdict


def test_what_is_equal() -> None:
    assert Pattern("", 0, 0, 14, is_more=False, least=0).verdict == "shown"
    assert Pattern("", 0, 0, 14, is_more=True, least=0).verdict == "refuted"
