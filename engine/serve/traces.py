"""A span per request, for collectors of OpenTelemetry."""

from __future__ import annotations

import os
import time
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bitheads import __version__
from bitheads.engine.serve.visit import Visit


class Traces:
    """Sends spans where OpenTelemetry's own environment variables say, by OTLP over HTTP."""

    def __init__(self) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ
        resource = Resource.create({} if named else {SERVICE_NAME: "bitheads"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("bitheads", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def note(self, visit: Visit, route: str, status: int) -> str:
        """A request has ended; returns the id of the trace that it is of.

        The stages are attributes: batches are shared, so they are no intervals of this request.
        """
        attributes: dict[str, Any] = {
            "http.request.method": visit.method,
            "http.route": route,
            "http.response.status_code": status,
            "client.address": visit.host,
            "bitheads.request_id": visit.id,
        }
        for name in ("texts", "tokens"):
            if (count := getattr(visit, name)) is not None:
                attributes[f"bitheads.{name}"] = count
        for stage, seconds in visit.stages.items():
            attributes[f"bitheads.{stage}_ms"] = 1000 * seconds
        span = self._tracer.start_span(
            f"{visit.method} {route}",
            self._propagator.extract(visit.trace_headers),
            SpanKind.SERVER,
            attributes,
            start_time=visit.started_ns,
        )
        if visit.error is not None:
            span.set_attribute("error.type", visit.error)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(time.time_ns())
        return format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()
