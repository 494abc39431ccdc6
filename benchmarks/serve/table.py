"""The server under load."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def measured(stored: dict[str, Any]) -> str:
    """A row per load."""
    result = stored["result"]
    head = ["load", "texts a request", "texts a second", "of offline `encode`"]
    rows = [
        _row(f"{load['clients']} clients", load["texts_a_request"], load)
        for load in result["closed"]
    ]
    for load in result.get("grpc", []):
        rows.append(_row(f"{load['clients']} clients over gRPC", load["texts_a_request"], load))
    for load in result.get("repeated", []):
        name = f"{load['clients']} clients, {load['share']:.0%} asked before"
        if (processes := load.get("processes", 1)) > 1:
            name += f", {processes} processes"
        rows.append(_row(name, 1, load))
    host = result.get("host") or {"closed": []}
    shared = result.get("host_shared") or {"closed": []}
    for where, found in (("in process", host), ("sharing batches", shared)):
        for load in found["closed"]:
            name = f"C++ host {where}, {load['clients']} threads"
            rows.append(_row(name, load["texts_a_request"], load))
    for load in result["open"]:
        rows.append(_row(f"{load['requests_per_s']:.0f} requests a second", 1, load))
    lines = table([*head, "p50, ms", "p95, ms", "p99, ms"], rows)
    sentences = [
        f"Offline, without a server: {result['offline_texts_per_s']:,.0f} texts a second, "
        f"{result['threads']} threads. The load's process shares the cores with the server. "
        "Clients wait for their answer; requests a second come regardless, and their time counts "
        "from when they were due.",
    ]
    if "repeated" in result:
        sentences.append(
            "Where it says how many were asked before, codes are kept as by default, and no other "
            "text comes twice; elsewhere with `--cache-bytes 0`, as the same texts come again and "
            "again."
        )
    if host["closed"]:
        sentences.append(
            f"The C++ host ({host['backend']}) is called by threads of its own process: no sockets "
            "and no queue that makes batches of several calls."
        )
    if shared["closed"]:
        sentences.append("Sharing batches, all its callers' texts wait in one queue.")
    return "\n".join([*lines, "", " ".join(sentences), source(stored)])


def _row(name: str, texts_a_request: int, load: dict[str, Any]) -> list[str]:
    ms = load["ms"]
    return [
        name,
        str(texts_a_request),
        f"{load['texts_per_s']:,.0f}",
        f"{load['share_of_offline']:.0%}",
        *(f"{ms[p]:.1f}" for p in ("p50", "p95", "p99")),
    ]


BLOCKS = (Block("serve", measured),)
