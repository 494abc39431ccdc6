"""The README's tables of the server under load."""

from __future__ import annotations

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
    host = result.get("host") or {"closed": []}
    for load in host["closed"]:
        name = f"C++ host in process, {load['clients']} threads"
        rows.append(_row(name, load["texts_a_request"], load))
    for load in result["open"]:
        rows.append(_row(f"{load['requests_per_s']:.0f} requests a second", 1, load))
    sentences = [
        f"Offline, without a server: {result['offline_texts_per_s']:,.0f} texts a second, "
        f"{result['threads']} threads. The load's process shares the cores with the server. "
        "Clients wait for their answer; requests a second come regardless, and their time counts "
        "from when they were due.",
    ]
    if host["closed"]:
        sentences.append(
            f"The C++ host ({host['backend']}) is called by threads of its own process: no sockets "
            "and no queue that makes batches of several calls."
        )
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


def overload(stored: dict[str, Any]) -> str:
    """A sentence or two."""
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
