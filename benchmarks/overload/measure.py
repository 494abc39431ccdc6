"""A server that is asked for twice what it can do, and one with a neighbour who asks for all of it.

Every request is answered or refused, and memory is flat; clients that ask for little have their
answers as if they were alone, or nearly.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from benchmarks import record
from benchmarks.figures.rounding import rounded
from benchmarks.inputs import texts
from benchmarks.options import command
from benchmarks.serve.requests import DIFFERENT, TEXTS, numbered, run_load, single
from benchmarks.serve.server_process import ServerProcess
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError

TIMES = 2.0
CLIENTS, MEASURE_S = 64, 15.0
QUARTERS = 4
NEIGHBOUR, NEIGHBOUR_CLIENTS = "127.0.0.2", 4
"""Address and connections of a client that sends the largest requests a server takes by default."""

NEIGHBOUR_TEXTS = (1000, 300)
"""Texts of its requests: the most that are taken, and some that end in time on slower machines."""

SHARE = 0.2
"""Share of what the server can do that the others ask for meanwhile, in single texts."""

SETTLE_S = 10.0
ALONE = 0.2
"""Part of the minutes in which they ask for it without the neighbour."""

QUICK_SECONDS, QUICK_TEXTS = 0.5, 12


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/overload.json; a quick run's figures mean nothing and only print.

    Raises InputError or ChildError for what is missing.
    """
    if options.threads < 1 or options.minutes <= 0:
        raise InputError("--threads and --minutes: expected more than 0.")
    result = measure(options)
    record.keep("overload", command("overload", options), result, options.quick)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What it can do is what it does for clients that wait; the server's memory by quarters."""
    found = texts.mixed(options.data, QUICK_TEXTS if options.quick else TEXTS)
    bodies = single(numbered(found, DIFFERENT))
    seconds = QUICK_SECONDS if options.quick else 60 * options.minutes
    with ServerProcess(options.bundle, options.threads) as server:
        measure_s = QUICK_SECONDS if options.quick else MEASURE_S
        waiting = {"kind": "closed", "clients": CLIENTS, "seconds": measure_s}
        can_do = run_load(server, bodies, waiting)
        per_s = TIMES * can_do["texts_per_s"]
        say(f"{per_s:.0f} requests per second for {seconds / 60:g} minutes")
        since_s = server.now_s()
        overload = run_load(server, bodies, {"kind": "open", "per_s": per_s, "seconds": seconds})
        quarter_s = (server.now_s() - since_s) / QUARTERS
        bounds = [since_s + i * quarter_s for i in range(QUARTERS + 1)]
        say("beside a neighbour who sends the largest requests, and without")
        modest_per_s = SHARE * can_do["texts_per_s"]
        modest = {"kind": "open", "per_s": modest_per_s}
        time.sleep(SETTLE_S)  # until what the overload left is done
        without = run_load(server, bodies, {**modest, "seconds": ALONE * seconds})
        with ThreadPoolExecutor(1) as pool:
            largest = _largest()
            asking = {"kind": "closed", "clients": NEIGHBOUR_CLIENTS, "seconds": seconds}
            its_load = {**asking, "from_host": NEIGHBOUR}
            neighbour = pool.submit(run_load, server, largest, its_load)
            beside = run_load(server, bodies, {**modest, "seconds": seconds})
            its = neighbour.result()
        return {
            "quick": options.quick,
            "threads": options.threads,
            "times": TIMES,
            "minutes": rounded(seconds / 60),
            "can_do_per_s": can_do["texts_per_s"],
            "requests_per_s": rounded(per_s),
            **overload,
            "peak_bytes_by_quarter": [server.peak_bytes(*between) for between in pairwise(bounds)],
            "neighbour": {
                "requests_per_s": rounded(modest_per_s),
                "without": without,
                "with": beside,
                "times_p99": rounded(beside["ms"]["p99"] / without["ms"]["p99"]),
                "its": its,
            },
            "exit_code": server.end(),
        }


def _largest() -> list[tuple[str, int]]:
    """The neighbour's requests: for each of its connections some, and no text twice."""
    sizes = NEIGHBOUR_TEXTS * NEIGHBOUR_CLIENTS
    texts = iter(numbered(["a " * 600], sum(sizes)))
    return [(json.dumps({"inputs": [next(texts) for _ in range(n)]}), n) for n in sizes]
