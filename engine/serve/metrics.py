"""What the server counts and times, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.samples import Sample

from bitheads.engine.serve.scheduler import BatchReport, Scheduler
from bitheads.engine.serve.statistics import Statistics

TIMES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)
EVERYWHERE = ("bitheads_heads", "process_max_fds")
"""What has the same value in each of a server's processes."""

REASONS = ("queue_full", "shutting_down", "timeout", "too_large", "unauthorized", "cancelled")


class Metrics:
    """One server's, in a registry of its own: several servers may be in one process."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"bitheads_{name}", help, labels, registry=registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"bitheads_{name}", help, labels, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests that were answered", "route", "status")
        self.request_s = histogram(
            "request_seconds", "From a request's first byte to its answer", TIMES_S, "route"
        )
        self.queue_s = histogram(
            "queue_seconds", "From a tokenized request to the encoder", TIMES_S
        )
        self.stage_s = histogram("stage_seconds", "Of a batch, by stage", TIMES_S, "stage")
        self.batch_rows = histogram("batch_texts", "Texts of an encoder call", ROWS)
        self.batch_tokens = histogram(
            "batch_tokens", "Tokens of an encoder call, without padding", TOKENS
        )
        self.texts = counter("texts", "Texts that were encoded")
        self.tokens = counter("tokens", "Tokens that were encoded")
        self.joined = counter(
            "joined_texts", "Texts that were answered with an equal one that was encoded"
        )
        self.cached = counter("cached_texts", "Texts whose codes were in the cache")
        self.padding = counter("padding_tokens", "Tokens that were computed for nothing")
        self.truncated = counter("truncated_texts", "Texts longer than the encoder reads")
        self.answers = counter("task_answers", "Answers, one per text and task", "task")
        self.refusals = counter(
            "task_refusals",
            "Answers that their head does not stand by, of heads that can say so",
            "task",
        )
        self.rejections = counter("rejections", "Requests that were not answered", "reason")
        for reason in REASONS:
            self.rejections.labels(reason)
        self.in_flight = Gauge(
            "bitheads_requests_in_flight", "Requests being read or answered", registry=registry
        )
        self._queued = Gauge(
            "bitheads_queued_tokens", "Tokens that wait or are encoded", registry=registry
        )
        self._cache_bytes = Gauge(
            "bitheads_cache_bytes", "Memory of the codes that are kept", registry=registry
        )
        self._cache_texts = Gauge(
            "bitheads_cache_texts", "Texts whose codes are kept", registry=registry
        )
        self._heads = Gauge("bitheads_heads", "Loaded heads", registry=registry)

    def batch(self, report: BatchReport) -> None:
        """Counts a batch, or texts that were in the cache; from any thread."""
        stats = report.stats
        self.statistics.batch(report)
        self.joined.inc(report.joined)
        self.cached.inc(report.cached)
        if not report.rows:
            return
        self.batch_rows.observe(report.rows)
        self.batch_tokens.observe(stats.num_tokens)
        self.texts.inc(report.rows)
        self.tokens.inc(stats.num_tokens)
        self.padding.inc(stats.num_padding)
        for stage in ("encode", "pack", "heads"):
            self.stage_s.labels(stage).observe(getattr(stats, f"{stage}_s"))

    def collect(self, scheduler: Scheduler, num_heads: int) -> list[Metric]:
        """All of it, for `show`."""
        self._queued.set(scheduler.queued_tokens)
        self._cache_bytes.set(scheduler.cache.nbytes)
        self._cache_texts.set(len(scheduler.cache))
        self._heads.set(num_heads)
        return list(self._registry.collect())


class _Collected:
    """What `generate_latest` takes a registry for."""

    def __init__(self, collected: Iterable[Metric]) -> None:
        self._collected = collected

    def collect(self) -> Iterable[Metric]:
        return self._collected


def show(parts: Sequence[Sequence[Metric]]) -> bytes:
    """What all processes of a server counted, in Prometheus' text format.

    Numbers are summed, but for times, of which the earliest is shown, and what is the same
    everywhere.
    """
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for part in parts:
        for family in part:
            families.setdefault(family.name, family)
            found = values.setdefault(family.name, {})
            for sample in family.samples:
                place = sample.name, tuple(sample.labels.items())
                known = found.get(place)
                found[place] = sample.value if known is None else _both(known, sample)
    summed = []
    for name, family in families.items():
        shown = Metric(name, family.documentation, family.type)
        for (sample_name, labels), value in values[name].items():
            shown.add_sample(sample_name, dict(labels), value)
        summed.append(shown)
    return generate_latest(cast(CollectorRegistry, _Collected(summed)))


def _both(known: float, sample: Sample) -> float:
    if sample.name.endswith(("_created", "_start_time_seconds")):
        return min(known, sample.value)
    return max(known, sample.value) if sample.name in EVERYWHERE else known + sample.value
