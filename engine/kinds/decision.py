"""What turns a head's logits into an answer, beside its weights: stored in the head's file.

A number here is compared as float32 with logits that are the same bits in every host, so every host
decides alike. A temperature is not among them: calibration divides the output's weights by it once,
when a head is trained, and so costs nothing and needs no host to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Decision:
    """How a head decides; which of these a kind wants is for its module to say.

    Attributes:
        thresholds: of each label, the logit from which on a text has it (`multi_label`).
        cuts: the logits between one label and the next, rising (`ordinal`).
        value_range: least and largest value that is given (`regression`).
        abstain_below: a label that is less likely is not accepted; 0 to 1 (`single_label`,
            `ordinal`).
        reject_above: a text whose reject score (Kind.reject_scores) is above is none of the head's
            business; None for a head without a reject output. Any kind has one or not.
        reject_scale: the chance of that is the sigmoid of so many times the reject score.
    """

    thresholds: tuple[float, ...] = ()
    cuts: tuple[float, ...] = ()
    value_range: tuple[float, float] | None = None
    abstain_below: float | None = None
    reject_above: float | None = None
    reject_scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for what no kind takes."""
        if self.value_range is not None and len(self.value_range) != 2:
            raise ValueError(f"value_range is {list(self.value_range)}, expected two numbers")
        numbers = [*self.thresholds, *self.cuts, *(self.value_range or ())]
        numbers += [n for n in (self.abstain_below, self.reject_above) if n is not None]
        numbers.append(self.reject_scale)
        for number in numbers:
            # As a float32, which is what it is compared as, it would be infinite.
            if type(number) not in (int, float) or not abs(number) <= 3e38:
                raise ValueError(f"its decision has {number!r}, expected numbers up to 3e38")
        if not _is_rising(self.cuts):
            raise ValueError(
                f"its cuts are {list(self.cuts)}, expected each above the one before as float32"
            )
        if not _is_rising(self.value_range or ()):
            raise ValueError(
                f"value_range is {list(self.value_range or ())}, expected the least value first, "
                "and another last as float32"
            )
        if self.abstain_below is not None and not 0 <= self.abstain_below <= 1:
            raise ValueError(f"abstain_below is {self.abstain_below}, expected 0 to 1")
        if self.reject_scale <= 0 or (self.reject_above is None and self.reject_scale != 1):
            raise ValueError(
                f"reject_scale is {self.reject_scale}, expected a number above 0, and a "
                "reject_above beside it"
            )

    @property
    def can_refuse(self) -> bool:
        """Whether an answer may be one that is not accepted."""
        return self.abstain_below is not None or self.reject_above is not None

    def to_json(self) -> dict[str, Any]:
        """What is set, by name."""
        found = {
            "thresholds": list(self.thresholds) or None,
            "cuts": list(self.cuts) or None,
            "value_range": None if self.value_range is None else list(self.value_range),
            "abstain_below": self.abstain_below,
            "reject_above": self.reject_above,
            "reject_scale": None if self.reject_above is None else self.reject_scale,
        }
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Decision:
        """Raises ValueError or TypeError for what `to_json` does not write."""
        if not isinstance(found, dict):
            raise TypeError(f"its decision is {type(found).__name__}, expected an object")
        lists = ("thresholds", "cuts", "value_range")
        known = {*lists, "abstain_below", "reject_above", "reject_scale"}
        if unknown := set(found) - known:
            raise ValueError(
                f"its decision has {sorted(unknown)}, expected some of {sorted(known)}"
            )
        for name in found:
            if isinstance(found[name], list) != (name in lists) or found[name] in ([], None):
                raise ValueError(f"its decision's {name} is {found[name]!r}")
        if ("reject_above" in found) != ("reject_scale" in found):
            raise ValueError("its decision has reject_above or reject_scale, expected both or none")
        values: dict[str, Any] = {
            name: tuple(value) if name in lists else value for name, value in found.items()
        }
        return cls(**values)


def _is_rising(numbers: Sequence[float]) -> bool:
    """Whether each is above the one before, as they are compared."""
    values = np.array(numbers, np.float32)
    return bool((values[:-1] < values[1:]).all())


NO_DECISION = Decision()
