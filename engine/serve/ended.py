"""What is written of a request once it has ended: counts, a line of the log, a span."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bitheads.engine.serve.logs import RequestLog
from bitheads.engine.serve.metrics import Metrics
from bitheads.engine.serve.visit import Visit

if TYPE_CHECKING:  # an extra of its own
    from bitheads.engine.serve.traces import Traces

NOT_ANSWERED = 499
"""The status of a request whose client left, as nginx logs it."""


class Ended:
    """See the module. The same for every protocol."""

    def __init__(self, metrics: Metrics, log: RequestLog, traces: Traces | None) -> None:
        self._metrics = metrics
        self._log = log
        self._traces = traces

    def begin(self) -> None:
        """A request is there."""
        self._metrics.in_flight.inc()

    def note(self, visit: Visit, route: str, status: int) -> None:
        """It has ended.

        Args:
            route: a pattern, never a path: what clients make up must not become metrics.
            status: of HTTP, or what it would be there.
        """
        took_s = time.perf_counter() - visit.started_s
        if visit.reason is not None:
            self._metrics.rejections.labels(visit.reason).inc()
        self._metrics.in_flight.dec()
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_s.labels(route).observe(took_s)
        trace = None if self._traces is None else self._traces.note(visit, route, status)
        self._log.write(route, status, took_s, visit, trace)
