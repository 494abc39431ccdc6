"""What the paper found, beside what a table shows: differences of two rows, task by task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from bitheads.training.table3.config import section_of
from bitheads.training.table3.features.recipe import Codes
from bitheads.training.table3.report.row import Row

QUANTIZED = tuple(codes.value for codes in Codes if codes is not Codes.FLOAT)
SIGNS_LOSS = 0.5
"""Points that signs may cost: the paper found 0.4, and none for uint8."""


@dataclass(frozen=True)
class Pattern:
    """Two rows of a table.

    Attributes:
        question: such as "attention over mean, frozen".
        points: of accuracy that the first row has more than the second, on average over tasks.
        error: standard error of that average, from how much tasks differ.
        tasks: how many both rows have.
        expected: "more than" or "at least" so many points.
    """

    question: str
    points: float
    error: float
    tasks: int
    is_more: bool
    least: float

    @property
    def expected(self) -> str:
        return f"{'>' if self.is_more else '>='} {self.least:g}"

    @property
    def verdict(self) -> str:
        """`shown` or `refuted` where it is so by two standard errors; else which it looks like."""
        distance = self.points - self.least
        sure = abs(distance) > 2 * self.error or self.error == 0
        if distance > 0 or (not self.is_more and distance == 0):
            return "shown" if sure else "rather so"
        return "refuted" if sure else "rather not"


def patterns(rows: Iterable[Row], chosen_layers: Mapping[str, int]) -> list[Pattern]:
    """Every comparison both of whose rows are there."""
    found = {(row.section, row.name): row for row in rows}
    counts = {section_of(method): count for method, count in chosen_layers.items()}
    asked: list[tuple[str, tuple[str, str], tuple[str, str], bool, float]] = []

    def mean_of(section: str, codes: str) -> tuple[str, str]:
        if section in counts:
            return section, f"mean-{counts[section]}/attention/{codes}"
        names = [name for at, name in found if at == section]
        means = {name.split("/")[0] for name in names if name.startswith("mean-")}
        return section, f"{means.pop() if len(means) == 1 else ''}/attention/{codes}"

    sections = list(dict.fromkeys(section for section, _ in found))
    for at in sections:
        last = {pooling: (at, f"last/{pooling}/float") for pooling in ("attention", "mean", "cls")}
        whole = mean_of(at, "float")
        asked += [
            (f"attention over mean, {at}", last["attention"], last["mean"], True, 0),
            (f"mean over CLS, {at}", last["mean"], last["cls"], True, 0),
            (f"mean of layers over last, {at}", whole, last["attention"], True, 0),
            (f"learned over mean of layers, {at}", (at, "learned/attention/float"), whole, True, 0),
        ]
        for codes in QUANTIZED:
            least = 0.0 if codes == Codes.UINT8.value else -SIGNS_LOSS
            asked.append((f"{codes} beside float, {at}", mean_of(at, codes), whole, False, least))
    frozen, shared = mean_of("frozen", "float"), mean_of("leave one task out", "float")
    as_is, own = ("all tasks", "used as is"), ("single task", "fine-tuned end to end")
    student, signed = ("single task", "distilled student"), "leave one task out signs"
    types = mean_of("leave one type out", "float")
    asked += [
        ("leave one task out over frozen", shared, frozen, True, 0),
        ("leave one task out over one type out", shared, types, True, 0),
        ("all tasks over leave one task out", as_is, shared, True, 0),
        (
            "all tasks, new heads over leave one task out",
            mean_of("all tasks, new heads", "float"),
            shared,
            True,
            0,
        ),
        ("single task over all tasks", own, as_is, True, 0),
        ("leave one task out over student", shared, student, True, 0),
        (
            "signs learned by the encoder, over not",
            mean_of(signed, "sign"),
            mean_of("leave one task out", "sign"),
            True,
            0,
        ),
    ]
    return [
        pattern
        for question, first, second, is_more, least in asked
        if first in found and second in found
        for pattern in _compared(question, found[first], found[second], is_more, least)
    ]


def _compared(question: str, one: Row, other: Row, is_more: bool, least: float) -> list[Pattern]:
    first, second = one.scores("accuracy"), other.scores("accuracy")
    differences = [mean(first[task]) - mean(second[task]) for task in first if task in second]
    if len(differences) < 2:
        return []
    error = stdev(differences) / math.sqrt(len(differences))
    return [Pattern(question, mean(differences), error, len(differences), is_more, least)]
