"""The server under closed and open load, from another process, beside `Engine.encode`.

The load's own process takes its share of the same cores, which counts against the server.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks import record
from benchmarks.figures.rounding import rounded
from benchmarks.inputs import texts
from benchmarks.options import command, require_at_least
from benchmarks.processes import child
from benchmarks.serve.requests import (
    DIFFERENT,
    TEXTS,
    grouped,
    numbered,
    repeating,
    run_load,
    single,
    summary,
)
from benchmarks.serve.server_process import ServerProcess
from bitheads import Engine
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError
from bitheads.engine.process.cores import count_cores
from bitheads.engine.types import Text

CLIENTS = (1, 4, 16, 64)
TEXTS_A_REQUEST = 16
OPEN_SHARES = (0.5, 0.8)
"""Shares of what the server reached with closed load."""

REPEATED_SHARES = (0.0, 0.2, 0.5, 1.0)
"""Of texts that were asked before, with the cache."""

PROCESSES = 2
"""Of a server that has several."""

OFFLINE_ROUNDS = 5
QUICK_TEXTS, QUICK_SECONDS = 12, 0.3


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/serve.json; a quick run's figures mean nothing and only print.

    Raises InputError, BundleError or BackendError, first of all, for what is missing.
    """
    require_at_least(1, options, "threads")
    if options.seconds <= 0:
        raise InputError(f"--seconds: got {options.seconds}, expected more than 0.")
    found = texts.mixed(options.data, QUICK_TEXTS if options.quick else TEXTS)
    result = measure(options, found)
    record.keep("serve", command("serve", options), result, options.quick)


def measure(options: argparse.Namespace, found: list[str]) -> dict[str, Any]:
    seconds = QUICK_SECONDS if options.quick else options.seconds
    different = numbered(found, DIFFERENT)
    one = single(different)
    many = grouped(different, TEXTS_A_REQUEST)
    offline = _offline(options, [*different[: len(found)]])
    with ServerProcess(options.bundle, options.threads, grpc=True) as server:
        run_load(server, one, {"kind": "closed", "clients": 16, "seconds": seconds / 2})  # warm-up
        closed = []
        for name, what in (("1", one), (str(TEXTS_A_REQUEST), many)):
            for clients in CLIENTS:
                say(f"closed, {clients} clients, {name} texts per request")
                load = {"kind": "closed", "clients": clients, "seconds": seconds}
                answer = run_load(server, what, load, offline)
                closed.append({"clients": clients, "texts_a_request": int(name), **answer})
        over_grpc = []
        for name, what in (("1", one), (str(TEXTS_A_REQUEST), many)):
            say(f"gRPC, {max(CLIENTS)} clients, {name} texts per request")
            load = {"kind": "closed", "clients": max(CLIENTS), "seconds": seconds}
            load |= {"protocol": "grpc", "model": options.bundle.resolve().name}
            answer = run_load(server, what, load, offline)
            over_grpc.append({"clients": max(CLIENTS), "texts_a_request": int(name), **answer})
        of_one = [row for row in closed if row["texts_a_request"] == 1]
        most_per_s = max(row["texts_per_s"] for row in of_one)
        open_load = []
        for share in OPEN_SHARES:
            say(f"open, {share:.0%} of what closed load reached")
            per_s = share * most_per_s
            load = {"kind": "open", "per_s": per_s, "seconds": seconds}
            answer = run_load(server, one, load, offline)
            open_load.append({"share": share, "requests_per_s": rounded(per_s), **answer})
        exit_code = server.end()
    return {
        "quick": options.quick,
        "threads": options.threads,
        "seconds": seconds,
        "data": texts.source_of(options.data),
        "texts": len(found),
        "offline_texts_per_s": rounded(offline),
        "closed": closed,
        "grpc": over_grpc,
        "open": open_load,
        "exit_code": exit_code,
        "repeated": _repeated(options, found, seconds, offline),
        "host": _host(options, different[: len(found)], seconds, offline, share_batches=False),
        "host_shared": _host(
            options, different[: len(found)], seconds, offline, share_batches=True
        ),
    }


def _repeated(
    options: argparse.Namespace, found: list[str], seconds: float, offline: float
) -> list[dict[str, Any]]:
    """A server with its cache, by the share of texts that were asked before, and its processes."""
    clients = max(CLIENTS)
    answers = []
    cases = [(1, share) for share in REPEATED_SHARES]
    if min(options.threads, count_cores()) >= PROCESSES:
        cases += [(PROCESSES, share) for share in (min(REPEATED_SHARES), max(REPEATED_SHARES))]
    for processes, share in cases:
        shown = f"{share:.0%} of the texts asked before, {processes} processes"
        say(f"closed, {clients} clients, {shown}")
        count = round(4 * seconds * offline / (1 - share)) if share < 1 else 1000
        known, asked = repeating(found, share, max(count, clients))
        with ServerProcess(
            options.bundle, options.threads, cached=True, processes=processes
        ) as server:
            run_load(server, known, {"kind": "closed", "clients": 16, "seconds": seconds / 2})
            load = {"kind": "closed", "clients": clients, "seconds": seconds}
            answer = run_load(server, asked, load, offline)
        answers.append({"share": share, "clients": clients, "processes": processes, **answer})
    return answers


def _host(
    options: argparse.Namespace,
    found: list[str],
    seconds: float,
    offline: float,
    share_batches: bool,
) -> dict[str, Any] | None:
    """The C++ host under the same closed loads; None if it is not built."""
    if not options.host_library.exists() or not (options.bundle / "host").exists():
        say("no C++ host: type make host, and bitheads host-tokenizer")
        return None
    say("the C++ host, callers share batches" if share_batches else "the C++ host")
    backend, precision = _backend(options)
    if backend != "openvino":
        return None
    calls = [
        [found[i : i + size] for i in range(0, len(found), size)] for size in (1, TEXTS_A_REQUEST)
    ]
    request = {
        "library": str(options.host_library.resolve()),
        "bundle": str(options.bundle.resolve()),
        "precision": precision,
        "threads": options.threads,
        "share_batches": share_batches,
        "calls": calls,
        "clients": CLIENTS,
        "seconds": seconds,
    }
    answer = child.run("benchmarks.serve.host_load", request)
    cases = [(size, clients) for size in (1, TEXTS_A_REQUEST) for clients in CLIENTS]
    return {
        "backend": answer["backend"],
        "closed": [
            {"clients": clients, "texts_a_request": size, **summary(found_load, offline)}
            for (size, clients), found_load in zip(cases, answer["loads"], strict=True)
        ],
    }


def _backend(options: argparse.Namespace) -> tuple[str, str]:
    """What the server's engine runs on: the host is to compute in the same precision."""
    with Engine.load(options.bundle, threads=options.threads) as engine:
        backend, precision = engine.backend.split()
    return backend, precision


def _offline(options: argparse.Namespace, found: list[Text]) -> float:
    """Texts per second of `Engine.encode`, the median of some rounds."""
    say("offline")
    with Engine.load(options.bundle, threads=options.threads) as engine:
        if not engine.tasks:
            raise InputError(f"bundle {options.bundle} has no heads, so nothing to predict.")
        engine.encode(found)
        rates = []
        for _ in range(1 if options.quick else OFFLINE_ROUNDS):
            started_s = time.perf_counter()
            engine.encode(found)
            rates.append(len(found) / (time.perf_counter() - started_s))
    return statistics.median(rates)
