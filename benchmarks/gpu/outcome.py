"""What becomes of a measurement: a result, or the reason why there is none."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.figures.rounding import percentiles, rounded
from bitheads.engine.errors import BitheadsError, DeviceMemoryError, PlanError

Outcome = dict[str, Any]
"""{"status": "measured", "result": ..., "wall_s": ...}, or "skipped" or "failed" and "reason"."""


class Skip(Exception):
    """Raised by a measurement that this machine, or this bundle, cannot give: says why."""


def attempt(what: str, measure: Callable[..., Any], *arguments: Any) -> Outcome:
    """Runs a measurement. What is missing on the machine skips it; anything else is a failure.

    Missing are: what raises Skip, a package, a plan, memory. A failure ends neither the run nor
    the report: the others still say something.
    """
    print(f"{what} ...", file=sys.stderr, flush=True)
    started_s = time.perf_counter()
    try:
        outcome: Outcome = {"status": "measured", "result": measure(*arguments)}
    except (Skip, PlanError, DeviceMemoryError, ImportError) as reason:
        outcome = {"status": "skipped", "reason": _one_line(reason)}
    except Exception as error:
        outcome = {
            "status": "failed",
            "reason": _one_line(error),
            "traceback": traceback.format_exc().splitlines()[-12:],
        }
    outcome["wall_s"] = round(time.perf_counter() - started_s, 2)
    shown = f": {outcome['reason']}" if "reason" in outcome else ""
    print(f"{what}: {outcome['status']}{shown}", file=sys.stderr, flush=True)
    return outcome


def failures(outcomes: Any, path: str = "") -> list[str]:
    """Names of all failed measurements, however deep in the tree of results they lie."""
    if not isinstance(outcomes, dict):
        return []
    if outcomes.get("status") == "failed":
        return [f"{path}: {outcomes['reason']}"]
    return [
        failure
        for name, value in outcomes.items()
        if name != "reason"
        for failure in failures(value, f"{path}, {name}" if path else name)
    ]


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and mean in ms; each percentile is a run that happened."""
    if not seconds:
        raise ValueError("latencies of nothing")
    ms = [1e3 * s for s in seconds]
    return {
        **{f"{name}_ms": value for name, value in percentiles(ms, method="higher").items()},
        "mean_ms": rounded(statistics.fmean(ms)),
        "runs": len(seconds),
    }


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or repr(error)
    known = isinstance(error, (Skip, BitheadsError))
    return text if known else f"{type(error).__name__}: {text}"
