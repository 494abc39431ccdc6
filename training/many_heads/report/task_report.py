"""What the report says of one task, in numbers: scores, intervals, differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitheads.training.many_heads.cells import Result
from bitheads.training.many_heads.scores import SCORE_NAMES, Interval, difference, interval, score

OTHERS = ("linear", "float_head", "fine_tuned")
"""What a head is compared with, where it was measured."""


@dataclass(frozen=True, eq=False)
class TaskReport:
    """One task's results.

    Attributes:
        head: of `train_job`; None if that failed.
        others: name of OTHERS -> result with "answers".
        curve: results of `curve_job`, by size.
        cost_us: microseconds of one text in the kernels, on one thread; None if not measured.
        failures: what went wrong, by what was done.
    """

    name: str
    head: Result | None = None
    others: Mapping[str, Result] = field(default_factory=dict)
    curve: tuple[Result, ...] = ()
    cost_us: float | None = None
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Of a head that is there."""
        assert self.head is not None, "it is there"
        return str(self.head.values["kind"])

    def to_json(self) -> dict[str, Any]:
        """The row of the table; numbers are shares of 1."""
        if self.head is None:
            return {"task": self.name, "failures": dict(self.failures)}
        values, arrays = self.head.values, self.head.arrays
        kind, count = self.kind, values["num_judged"]
        answers, truth = arrays["answers"], arrays["truth"]
        row: dict[str, Any] = {
            "task": self.name,
            "kind": kind,
            "form": values["form"],
            "labels": len(values["labels"]),
            "rows": values["rows"],
            "judged": values["judged"],
            "num_judged": count,
            "score": SCORE_NAMES[kind],
            "head": score(kind, answers, truth),
            "interval": list(interval(kind, answers, truth, count)),
            "bytes": values["nbytes"],
            "cost_us": self.cost_us,
        }
        for name, other in self.others.items():
            found = other.arrays["answers"]
            row[name] = score(kind, found, truth)
            row[f"{name}_interval"] = list(interval(kind, found, truth, count))
            row[f"better_than_{name}"] = list(difference(kind, answers, found, truth, count))
        if self.curve:
            row["learning_curve"] = [result.values for result in self.curve]
        if self.failures:
            row["failures"] = dict(self.failures)
        return row


def verdict(row: Mapping[str, Any], other: str) -> str:
    """ "better" or "worse" than another model, if that is outside the difference's interval."""
    if f"better_than_{other}" not in row:
        return ""
    found = Interval(*row[f"better_than_{other}"])
    return "better" if found.low > 0 else "worse" if found.high < 0 else ""
