"""What a user says of a head's decision, before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from bitheads.training.errors import require


@dataclass(frozen=True)
class DecisionOptions:
    """How decisions are chosen on the dev set.

    Attributes:
        balanced: labels weigh as much as each other in the loss, however rare.
        min_precision, min_recall: of each label of a `multi_label` head: its threshold is the one
            with the best recall (precision) that keeps this. Without either, the best F1.
        abstain_below: a label that is less likely is not accepted.
        keep: share of the dev texts that the reject output lets through.
        order: the labels of an `ordinal` head from the lowest on, where they are no numbers.
        value_range: least and largest value of a `regression`; None: those of the training texts.
    """

    balanced: bool = False
    min_precision: float | None = None
    min_recall: float | None = None
    abstain_below: float | None = None
    keep: float = 0.99
    order: tuple[str, ...] | None = None
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("min_precision", "min_recall", "abstain_below"):
            value = getattr(self, name)
            require(name, value, value is None or 0 < value < 1, "a number between 0 and 1")
        require("keep", self.keep, 0.5 <= self.keep <= 1, "0.5 to 1")
        both = self.min_precision is not None and self.min_recall is not None
        require("min_recall", self.min_recall, not both, "only one of min_precision and min_recall")
        if self.value_range is not None:
            low, high = self.value_range
            require("value_range", self.value_range, low < high, "the least value first")


DEFAULT_OPTIONS = DecisionOptions()
