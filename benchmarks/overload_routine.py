"""A server that is asked twice what it can do: every request answered or refused, memory flat."""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Any

from benchmarks import child, record, texts
from benchmarks.cpu_options import OVERLOAD_MINUTES, THREADS
from benchmarks.heads.timing import rounded
from benchmarks.serve_routine import PATH, TEXTS, single, summary
from benchmarks.serving.process import ServerProcess
from engine.command_line import say
from engine.errors import InputError

COMMAND = "python -m benchmarks overload"
TIMES = 2.0
CLIENTS, MEASURE_S = 64, 15.0
QUARTERS = 4
QUICK_SECONDS, QUICK_TEXTS = 0.5, 12


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/overload.json; a quick run's figures mean nothing and only print.

    Raises InputError or ChildError for what is missing.
    """
    if options.threads < 1 or options.minutes <= 0:
        raise InputError("--threads and --minutes: expected more than 0.")
    result = measure(options)
    if options.quick:
        record.show("overload", _command(options), result)
    else:
        record.write("overload", _command(options), result)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What it can do is what it does for clients that wait; the server's memory by quarters."""
    bodies = single(texts.mixed(options.data, QUICK_TEXTS if options.quick else TEXTS))
    seconds = QUICK_SECONDS if options.quick else 60 * options.minutes
    with ServerProcess(options.bundle, options.threads) as server:

        def load(**more: Any) -> dict[str, Any]:
            request = {"host": server.host, "port": server.port, "path": PATH, "bodies": bodies}
            return summary(child.run("benchmarks.serving.load", {**request, **more}))

        measure_s = QUICK_SECONDS if options.quick else MEASURE_S
        can_do = load(kind="closed", clients=CLIENTS, seconds=measure_s)
        per_s = TIMES * can_do["texts_per_s"]
        say(f"{per_s:.0f} requests a second for {seconds / 60:g} minutes")
        since_s = server.now_s()
        found = load(kind="open", per_s=per_s, seconds=seconds)
        quarter_s = (server.now_s() - since_s) / QUARTERS
        bounds = [since_s + i * quarter_s for i in range(QUARTERS + 1)]
        return {
            "quick": options.quick,
            "threads": options.threads,
            "times": TIMES,
            "minutes": rounded(seconds / 60),
            "can_do_per_s": can_do["texts_per_s"],
            "requests_per_s": rounded(per_s),
            **found,
            "peak_bytes_by_quarter": [server.peak_bytes(*between) for between in pairwise(bounds)],
            "exit_code": server.end(),
        }


def _command(options: argparse.Namespace) -> str:
    words = [COMMAND]
    words += ["--quick"] if options.quick else []
    words += ["--data DIR"] if options.data else []
    words += [f"--threads {options.threads}"] if options.threads != THREADS else []
    words += [f"--minutes {options.minutes:g}"] if options.minutes != OVERLOAD_MINUTES else []
    return " ".join(words)
