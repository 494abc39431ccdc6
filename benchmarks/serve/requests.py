"""What a server is asked, and what came of it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures.rounding import percentiles, rounded
from benchmarks.processes import child
from benchmarks.serve.server_process import ServerProcess

PATH = "/v1/predict"
TEXTS = 700
"""Texts of the benchmark's data that are asked, again and again, each time with another number."""

DIFFERENT = 20_000
"""Texts that are different by their numbers: more than ever wait at the same time, where a server
would encode what is equal once."""

KNOWN = 100
"""Texts that are asked again and again where the cache is measured."""

Bodies = Sequence[tuple[str, int]]
"""Bodies of requests, and how many texts each has."""


def single(texts: Sequence[str]) -> Bodies:
    """A request per text."""
    return [(json.dumps({"inputs": text}), 1) for text in texts]


def grouped(texts: Sequence[str], size: int) -> Bodies:
    """A request per `size` texts; the last may have fewer."""
    groups = [texts[i : i + size] for i in range(0, len(texts), size)]
    return [(json.dumps({"inputs": group}), len(group)) for group in groups]


def numbered(texts: Sequence[str], count: int) -> list[str]:
    """So many texts of which no two are equal: each begins with a number of five digits."""
    return [f"{10_000 + i} {texts[i % len(texts)]}" for i in range(count)]


def repeating(texts: Sequence[str], share: float, count: int) -> tuple[Bodies, Bodies]:
    """Requests of one text each: those of known texts, and others of which a share ask for these.

    No other text comes twice.
    """
    draw = random.Random(0)
    different = numbered(texts, KNOWN + count)
    known, fresh = different[:KNOWN], different[KNOWN:]
    asked = [draw.choice(known) if draw.random() < share else text for text in fresh]
    return single(known), single(asked)


def run_load(
    server: ServerProcess, bodies: Bodies, load: Mapping[str, Any], offline: float | None = None
) -> dict[str, Any]:
    """Asks a server from another process.

    Args:
        load: its kind and how much of it, and its protocol if that is "grpc", see
            benchmarks.serve.load.measure.
        offline: texts per second that the result is compared with.
    """
    port = server.grpc_port if load.get("protocol") == "grpc" else server.port
    request = {"host": server.host, "port": port, "path": PATH, "bodies": bodies, **load}
    return summary(child.run("benchmarks.serve.load", request), offline)


def summary(found: Mapping[str, Any], offline: float | None = None) -> dict[str, Any]:
    """What came of a load, as it is stored."""
    times_ms = [1000 * s for s in found["times_s"]] or [float("nan")]
    texts_per_s = found["texts"] / found["seconds"]
    return {
        "requests": sum(found["statuses"].values()),
        "statuses": found["statuses"],
        "texts_per_s": rounded(texts_per_s),
        **({} if offline is None else {"share_of_offline": rounded(texts_per_s / offline)}),
        "ms": percentiles(times_ms),
    }
