"""Spans of requests, at a collector on a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from conftest import ServerProcess, running
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Its address, and what it got."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", got
        finally:
            server.shutdown()
            thread.join()


def spans_of(got: list[ExportTraceServiceRequest]) -> list[Span]:
    return [
        span
        for request in got
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def attributes_of(span: Span) -> dict[str, Any]:
    found = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        assert kind is not None
        found[item.key] = getattr(item.value, kind)
    return found


def test_a_span_per_request(head_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        with running(head_bundle, traces="otlp", grpc_port=0) as (client, server):
            before_ns = time.time_ns()
            asked = {"inputs": ["A text.", "Another one."]}
            headers = {"traceparent": TRACEPARENT, "x-request-id": "mine"}
            assert client.post("/v1/predict", json=asked, headers=headers).status_code == 200
            assert client.post("/v1/predict", json={"inputs": 1}).status_code == 422
            assert server.grpc is not None
            with grpc.insecure_channel(f"127.0.0.1:{server.grpc.port}") as channel:
                channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(
                    b"", metadata=[("traceparent", TRACEPARENT)]
                )
        after_ns = time.time_ns()
    resources = {
        item.key: item.value.string_value
        for request in got
        for spans in request.resource_spans
        for item in spans.resource.attributes
    }
    assert resources["service.name"] == "bitheads"
    answered, refused, called = spans_of(got)

    assert answered.name == "POST /v1/predict"
    assert answered.kind == Span.SPAN_KIND_SERVER
    assert (answered.trace_id.hex(), answered.parent_span_id.hex()) == (TRACE, PARENT)
    assert before_ns <= answered.start_time_unix_nano < answered.end_time_unix_nano <= after_ns
    found = attributes_of(answered)
    assert found["http.route"] == "/v1/predict"
    assert found["http.response.status_code"] == 200
    assert found["client.address"] == "127.0.0.1"
    assert found["bitheads.request_id"] == "mine"
    assert found["bitheads.texts"] == 2
    assert found["bitheads.tokens"] > 4
    took_ms = (answered.end_time_unix_nano - answered.start_time_unix_nano) / 1e6
    stages = [f"bitheads.{name}_ms" for name in ("tokenize", "queue", "encode", "pack", "heads")]
    assert 0 < sum(found[name] for name in stages) <= took_ms
    assert not any("A text" in str(value) for value in found.values())

    assert refused.trace_id.hex() != TRACE
    assert not refused.parent_span_id
    found = attributes_of(refused)
    assert (found["http.response.status_code"], found["error.type"]) == (422, "bad_request")
    assert refused.status.code == Status.STATUS_CODE_UNSET  # the client's fault

    assert called.name == "POST /inference.GRPCInferenceService/ServerLive"
    assert called.trace_id.hex() == TRACE


def test_the_log_says_which_trace(head_bundle: Path) -> None:
    with collector() as (url, got):
        options = ["--bundle", str(head_bundle), "--backend", "onnxruntime", "--traces", "otlp"]
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "mine"}
        with ServerProcess(*options, **environment) as process:
            headers = {"traceparent": TRACEPARENT}
            asked = {"inputs": "A text."}
            answer = httpx.post(f"{process.url}/v1/predict", json=asked, headers=headers)
            assert answer.status_code == 200
            assert process.end(15) == 0
            lines = [line for line in process.log() if line.get("route") == "/v1/predict"]
    assert [line["trace_id"] for line in lines] == [TRACE]
    (span,) = spans_of(got)
    assert span.trace_id.hex() == TRACE
    (resource,) = [item.resource for request in got for item in request.resource_spans]
    names = {item.key: item.value.string_value for item in resource.attributes}
    assert names["service.name"] == "mine"


def test_nobody_listens(head_bundle: Path) -> None:
    """Requests are answered all the same, and the server ends."""
    options = ["--bundle", str(head_bundle), "--backend", "onnxruntime", "--traces", "otlp"]
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with ServerProcess(*options, **environment) as process:
        for _ in range(3):
            answer = httpx.post(f"{process.url}/v1/predict", json={"inputs": "A text."})
            assert answer.status_code == 200
        started_s = time.monotonic()
        assert process.end(15) == 0
        assert time.monotonic() - started_s < 60  # not for ever
