"""What is stored of measured values: their significant digits and percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

PERCENTILES = (50, 95, 99)


def rounded(value: float, digits: int = 4) -> float:
    """To significant digits."""
    return float(f"{value:.{digits}g}")


def percentiles(
    values: Sequence[float],
    at: Sequence[int] = PERCENTILES,
    method: Literal["linear", "higher"] = "linear",
) -> dict[str, float]:
    """p50, p95 and p99, rounded, in the unit of the values.

    Args:
        method: see numpy.percentile; with `higher` each is a value that was measured.
    """
    return {f"p{p}": rounded(float(np.percentile(values, p, method=method))) for p in at}
