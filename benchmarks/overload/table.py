"""The server when it is asked for too much."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import size, source


def measured(stored: dict[str, Any]) -> str:
    """Sentences: what was answered, and what memory was taken."""
    result = stored["result"]
    statuses, peaks = result["statuses"], result["peak_bytes_by_quarter"]
    others = result["requests"] - statuses.get("200", 0) - statuses.get("429", 0)
    text = (
        f"Asked {result['times']:g} times what it can do ({result['can_do_per_s']:,.0f} texts a "
        f"second) for {result['minutes']:g} minutes, the server answered "
        f"{statuses.get('200', 0):,} of {result['requests']:,} requests (p50 "
        f"{result['ms']['p50']:,.0f} ms, p99 {result['ms']['p99']:,.0f} ms) and refused "
        f"{statuses.get('429', 0):,} with 429; anything else: {others:,}. Its memory in each "
        f"quarter of the time: {', '.join(map(size, peaks))}."
    )
    if "neighbour" in result:
        text += " " + _neighbour(result["neighbour"])
    return "\n".join([text, source(stored)])


def _neighbour(found: dict[str, Any]) -> str:
    without, beside = found["without"]["ms"], found["with"]["ms"]
    refused = found["with"]["requests"] - found["with"]["statuses"].get("200", 0)
    return (
        "Beside a neighbour of another address who always sends the largest requests there may be, "
        f"single texts, {found['requests_per_s']:.0f} a second, take {beside['p50']:.0f} ms (p50) "
        f"and {beside['p99']:.0f} ms (p99), where they take {without['p50']:.0f} and "
        f"{without['p99']:.0f} ms without: {found['times_p99']:.1f} times the p99. Of them, "
        f"{refused:,} of {found['with']['requests']:,} were not answered."
    )


BLOCKS = (Block("overload", measured),)
