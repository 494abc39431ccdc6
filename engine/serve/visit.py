"""One request on its way through the server."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bitheads.engine.serve.errors import HttpError
from bitheads.engine.serve.scheduler import Scheduler

TRACE_HEADERS = ("traceparent", "tracestate")


class Visit:
    """One request on its way, in `scope["visit"]`; routes write down what it turned out to be.

    Attributes:
        id: the client's X-Request-ID, or one made up.
        client: whose it is, for shares of the server: the API key's, else the address's.
        host: the address it came from.
        method: of HTTP.
        trace_headers: `traceparent` and `tracestate`, by which it is part of the client's trace.
        started_s, started_ns: when it began, by time.perf_counter and by time.time_ns.
        stages: seconds of each, see engine.serve.messages.stages_of; empty if it was not answered.
        error: the word of the error it ended with.
        reason: of bitheads_rejections.
        texts, tokens: of its inputs, None before they are known.
    """

    def __init__(
        self,
        request_id: str,
        client: str,
        scheduler: Scheduler,
        host: str,
        method: str,
        trace_headers: Mapping[str, str],
    ) -> None:
        self.id = request_id
        self.client = client
        self.host = host
        self.method = method
        self.trace_headers = trace_headers
        self.started_s, self.started_ns = time.perf_counter(), time.time_ns()
        self.stages: Mapping[str, float] = {}
        self.error: str | None = None
        self.reason: str | None = None
        self.texts: int | None = None
        self.tokens: int | None = None
        self._scheduler = scheduler
        self._is_announced = False

    def fail(self, error: HttpError) -> None:
        """It ends with this error."""
        self.error, self.reason = error.code, error.reason

    def announce(self) -> None:
        """See Scheduler.announce."""
        self._is_announced = True
        self._scheduler.announce()

    def retract(self) -> None:
        """See Scheduler.retract; once is enough, more does nothing."""
        if self._is_announced:
            self._is_announced = False
            self._scheduler.retract()
