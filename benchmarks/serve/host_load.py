"""The C++ host under closed load: threads of one process call the library, no sockets between.

Each call's texts are batches by themselves, unless callers share batches.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders.host_library import HostEngine, HostLibrary
from benchmarks.processes import child


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """As benchmarks.serve.load answers, one load after the other."""
    library = HostLibrary(Path(request["library"]))
    precision, threads = request["precision"], request["threads"]
    with HostEngine(
        library,
        Path(request["bundle"]),
        precision,
        threads,
        share_batches=request["share_batches"],
    ) as engine:
        tasks = [task for task, form in engine.tasks.items() if form == "single"]
        for calls in request["calls"]:
            for texts in calls:
                engine.answer(texts, tasks)  # what a first call makes is there afterwards
        return {
            "backend": engine.backend,
            "loads": [
                _closed(engine, calls, tasks, clients, request["seconds"])
                for calls in request["calls"]
                for clients in request["clients"]
            ],
        }


def _closed(
    engine: HostEngine, calls: list[list[str]], tasks: list[str], clients: int, seconds: float
) -> dict[str, Any]:
    times_s: list[float] = []
    num_texts = [0] * clients
    started_s = time.perf_counter()

    def client(number: int) -> None:
        i = number * max(1, len(calls) // clients)
        while time.perf_counter() - started_s < seconds:
            texts = calls[i % len(calls)]
            i += 1
            called_s = time.perf_counter()
            engine.answer(texts, tasks)
            times_s.append(time.perf_counter() - called_s)
            num_texts[number] += len(texts)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "seconds": time.perf_counter() - started_s,
        "times_s": times_s,
        "statuses": {"200": len(times_s)},
        "texts": sum(num_texts),
    }


if __name__ == "__main__":
    child.answer(measure)
