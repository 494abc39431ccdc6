"""A plan's optimization profiles: which batches it serves, and which serves a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitheads.engine.errors import PlanError

Shape = tuple[int, int]
"""(rows, seq) of a batch."""


@dataclass(frozen=True)
class Profile:
    """The batches one optimization profile serves: any from `min` to `max`, `opt` the fastest.

    Attributes:
        min, opt, max: (rows, seq) each.
    """

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        shapes = (self.min, self.opt, self.max)
        for shape in shapes:
            if len(shape) != 2 or not all(type(size) is int for size in shape):
                raise PlanError(f"profile: got {shape!r}, expected (rows, seq), two integers.")
        for sizes in zip(*shapes, strict=True):
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise PlanError(
                    f"profile {self}: expected 1 <= min <= opt <= max, for rows and for seq."
                )

    def __str__(self) -> str:
        """As `--plan-profile` reads it: "1x1,8x64,32x64"."""
        return ",".join(f"{rows}x{seq}" for rows, seq in (self.min, self.opt, self.max))

    @property
    def max_tokens(self) -> int:
        """Most tokens of a batch, padding included."""
        return self.max[0] * self.max[1]

    def fits(self, rows: int, seq: int) -> bool:
        return self.min[0] <= rows <= self.max[0] and self.min[1] <= seq <= self.max[1]


def choose_profile(profiles: Sequence[Profile], rows: int, seq: int) -> int:
    """Index of the profile for a batch: the smallest that it fits.

    That is the one with room for the fewest tokens, of several the one for shorter texts.

    Raises PlanError if it fits none; it says what to type.
    """
    fitting = [i for i, profile in enumerate(profiles) if profile.fits(rows, seq)]
    if fitting:
        return min(fitting, key=lambda i: (profiles[i].max_tokens, profiles[i].max[1], i))
    wanted = f"1x1,{rows}x{seq},{rows}x{seq}"
    options = " ".join(f"--plan-profile {p}" for p in [*profiles, wanted])
    raise PlanError(
        f"the plan's profiles are too small: got a batch of {rows} rows of {seq} tokens, expected "
        f"one that fits {' or '.join(str(p) for p in profiles)} (min, opt, max). Use a smaller "
        f"token budget (max_batch_tokens), or type: bitheads plan --bundle BUNDLE {options}"
    )


def max_rows(profiles: Sequence[Profile], seq: int) -> int:
    """Most rows of `seq` tokens that fit a profile: where to split a larger batch.

    Raises PlanError if one row fits none; it says what to type.
    """
    choose_profile(profiles, 1, seq)
    return max(p.max[0] for p in profiles if p.fits(1, seq))
