"""What the server counts and times, for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from bitheads.engine.serve.scheduler import BatchReport, Scheduler
from bitheads.engine.serve.statistics import Statistics

TIMES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)
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

    def show(self, scheduler: Scheduler, num_heads: int) -> bytes:
        """All of it, in Prometheus' text format."""
        self._queued.set(scheduler.queued_tokens)
        self._cache_bytes.set(scheduler.cache.nbytes)
        self._cache_texts.set(len(scheduler.cache))
        self._heads.set(num_heads)
        return generate_latest(self._registry)
