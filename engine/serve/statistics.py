"""What requests cost so far, as Triton's clients ask for it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bitheads.engine.serve.scheduler import BatchReport
from bitheads.engine.types import Stats


class Duration:
    """How often something was done, and how long that took in all."""

    def __init__(self) -> None:
        self._count = self._ns = 0

    def add(self, took_s: float) -> None:
        self._count += 1
        self._ns += round(1e9 * took_s)

    def show(self) -> dict[str, int]:
        return {"count": self._count, "ns": self._ns}


class Statistics:
    """Of all requests of texts, whatever protocol they came by. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = self._texts = self._batches = 0
        stages = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        self._stages = {stage: Duration() for stage in stages}
        self._of_rows: defaultdict[int, Duration] = defaultdict(Duration)

    def succeeded(
        self, texts: int, took_s: float, tokenize_s: float, queue_s: float, stats: Stats
    ) -> None:
        """A request was answered: in all, and by stage."""
        with self._lock:
            self._last_ms = time.time_ns() // 1_000_000
            self._texts += texts
            self._stages["success"].add(took_s)
            self._stages["compute_input"].add(tokenize_s)
            self._stages["queue"].add(queue_s)
            self._stages["compute_infer"].add(_infer_s(stats))

    def failed(self, took_s: float) -> None:
        """A request was not answered."""
        with self._lock:
            self._stages["fail"].add(took_s)

    def wrote(self, took_s: float) -> None:
        """An answer was written."""
        with self._lock:
            self._stages["compute_output"].add(took_s)

    def batch(self, report: BatchReport) -> None:
        """The encoder ran on a batch; or texts were in the cache."""
        if not report.rows:
            return
        with self._lock:
            self._batches += 1
            self._of_rows[report.rows].add(_infer_s(report.stats))

    def show(self) -> dict[str, Any]:
        """As Triton's statistics have it."""
        with self._lock:
            return {
                "last_inference": self._last_ms,
                "inference_count": self._texts,
                "execution_count": self._batches,
                "inference_stats": {name: made.show() for name, made in self._stages.items()},
                "batch_stats": [
                    {"batch_size": rows, "compute_infer": made.show()}
                    for rows, made in sorted(self._of_rows.items())
                ],
            }


def summed(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several processes show, as if it were of one."""
    stages = parts[0]["inference_stats"]
    of_rows: defaultdict[int, list[Mapping[str, int]]] = defaultdict(list)
    for part in parts:
        for batch in part["batch_stats"]:
            of_rows[batch["batch_size"]].append(batch["compute_infer"])
    return {
        "last_inference": max(part["last_inference"] for part in parts),
        **{
            name: sum(part[name] for part in parts)
            for name in ("inference_count", "execution_count")
        },
        "inference_stats": {
            name: _sum([part["inference_stats"][name] for part in parts]) for name in stages
        },
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _sum(made)}
            for rows, made in sorted(of_rows.items())
        ],
    }


def _sum(durations: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(made[name] for made in durations) for name in ("count", "ns")}


def _infer_s(stats: Stats) -> float:
    return stats.encode_s + stats.pack_s + stats.heads_s
