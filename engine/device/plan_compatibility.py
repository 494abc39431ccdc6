"""What a plan runs on beside the TensorRT that built it and the GPUs it was built for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bitheads.engine.errors import PlanError

LATER_VERSIONS = "version"
SAME_CAPABILITY = "same-compute-capability"
AMPERE_PLUS = "ampere+"
COMPATIBILITIES = (LATER_VERSIONS, SAME_CAPABILITY, AMPERE_PLUS)
"""TensorRT's three kinds: later versions of it; any model of GPU of the compute capability that the
plan was built on; any GPU from compute capability 8.0 on."""

OLDEST_AMPERE = (8, 0)
READS_EARLIER = {11: 10}
"""Major version of TensorRT -> the one whose plans for later versions it takes beside its own."""


def check_compatibility(names: Sequence[str]) -> None:
    """Raises PlanError unless these are kinds that go together, in the order of COMPATIBILITIES."""
    known = [name for name in COMPATIBILITIES if name in names]
    if list(names) != known or {SAME_CAPABILITY, AMPERE_PLUS} <= {*names}:
        raise PlanError(
            f"compatibility: got {list(names)!r:.99}, expected {LATER_VERSIONS!r}, one of "
            f"{SAME_CAPABILITY!r} and {AMPERE_PLUS!r}, both in this order, or none."
        )


def takes_version(compatibility: Sequence[str], built_with: str, here: str) -> bool:
    """Whether a plan of one version of TensorRT runs on another, or on the same."""
    if built_with == here:
        return True
    if LATER_VERSIONS not in compatibility:
        return False
    made, runs = _numbers(built_with), _numbers(here)
    if made[0] == runs[0]:
        return made <= runs
    return READS_EARLIER.get(runs[0]) == made[0]


def takes_capability(compatibility: Sequence[str], built_for: Sequence[str], here: str) -> bool:
    """Whether a plan for some compute capabilities runs on a GPU of another, or of one of them."""
    if here in built_for:
        return True
    return AMPERE_PLUS in compatibility and _numbers(here) >= OLDEST_AMPERE


def _numbers(version: str) -> tuple[int, ...]:
    """Of "10.14.1.48.post1" 10, 14, 1 and 48."""
    return tuple(int(number) for number in re.findall(r"(?:^|(?<=\.))\d+(?=\.|$)", version))
