"""The README's tables of the server under load."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.markdown import size, source


def measured(stored: dict[str, Any]) -> str:
    """A row a load."""
    result = stored["result"]
    rows = [
        "| load | texts a request | texts a second | of offline `encode` | p50, ms | p95, ms "
        "| p99, ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for load in result["closed"]:
        rows.append(_row(f"{load['clients']} clients", load["texts_a_request"], load))
    for load in result["open"]:
        rows.append(_row(f"{load['requests_per_s']:.0f} requests a second", 1, load))
    sentences = [
        f"Offline, without a server: {result['offline_texts_per_s']:,.0f} texts a second, "
        f"{result['threads']} threads. The load's process shares the cores with the server. "
        "Clients wait for their answer; requests a second come regardless, and their time counts "
        "from when they were due.",
        *_overload(result),
    ]
    return "\n".join([*rows, "", " ".join(sentences), source(stored)])


def _row(name: str, texts_a_request: int, load: dict[str, Any]) -> str:
    ms = load["ms"]
    cells = [
        name,
        str(texts_a_request),
        f"{load['texts_per_s']:,.0f}",
        f"{load['share_of_offline']:.0%}",
        *(f"{ms[p]:.1f}" for p in ("p50", "p95", "p99")),
    ]
    return f"| {' | '.join(cells)} |"


def _overload(result: dict[str, Any]) -> Iterator[str]:
    load = result.get("overload")
    if load is None:
        return
    statuses, peaks = load["statuses"], load["peak_bytes_by_quarter"]
    others = load["requests"] - statuses.get("200", 0) - statuses.get("429", 0)
    yield (
        f"At {load['times']:g} times what it can do, for {load['minutes']:g} minutes, "
        f"{statuses.get('200', 0):,} of {load['requests']:,} requests were answered (p99 "
        f"{load['ms']['p99']:,.0f} ms), {statuses.get('429', 0):,} refused with "
        f"429, and {others:,} anything else; the server's memory in each quarter: "
        f"{', '.join(map(size, peaks))}."
    )
