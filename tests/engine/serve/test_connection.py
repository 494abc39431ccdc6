"""What goes over a connection: requests that are wrong, late, or one after another."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ADMIN_KEY, running
from fuzz import Reply, parse
from test_limits import BODY, connect, metric, post, read_all

UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"


def replies(client: httpx.Client, *sent: bytes) -> list[Reply]:
    """What comes until the server closes the connection."""
    with connect(client) as connection:
        for content in sent:
            connection.sendall(content)
        return parse(b"", read_all(connection))


def last(content: bytes) -> bytes:
    """So that the server closes the connection after it."""
    return content.replace(b"Host: x", b"Host: x\r\nConnection: close", 1)


def is_gone(connection: socket.socket, within_ms: int) -> bool:
    """Whether the other side has aborted it, without reading from it."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP | select.POLLERR)
    return bool(poll.poll(within_ms))


def statuses(client: httpx.Client, *sent: bytes) -> list[int]:
    return [reply.status for reply in replies(client, *sent)]


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nowhere?\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_has_an_error_like_any_other(client: httpx.Client, content: bytes) -> None:
    (reply,) = replies(client, content)
    assert reply.status == 400
    error = json.loads(reply.body)["error"]
    assert error["code"] == "bad_request"
    assert error["message"]


def test_another_protocol_on_offer_changes_nothing(client: httpx.Client) -> None:
    """Java's client offers HTTP/2 with every first request, also with those that have a body."""
    offered = post(BODY).replace(b"Host: x", b"Host: x\r\n" + UPGRADE)
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    chunked = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n" + chunks
    assert statuses(client, offered + chunked + last(post(BODY))) == [200]  # once at a time
    for content in (offered, chunked):
        with connect(client) as connection:
            connection.sendall(content[:-9])
            time.sleep(0.05)
            connection.sendall(content[-9:])
            while b"usage" not in connection.recv(1 << 16):
                pass
            connection.sendall(last(post(BODY)))
            (reply,) = parse(b"", read_all(connection))
            assert reply.status == 200


def test_leading_zeros_of_a_length(client: httpx.Client) -> None:
    zeros = last(post(BODY)).replace(b"Content-Length: ", b"Content-Length: " + b"0" * 5000)
    assert statuses(client, zeros) == [200]


def test_lengths_of_too_many_digits(client: httpx.Client) -> None:
    headers = {"inference-header-content-length": "9" * 5000}
    response = client.post("/v2/models/tiny/infer", content=BODY, headers=headers)
    assert response.status_code == 422


def test_no_path_leads_elsewhere(client: httpx.Client) -> None:
    response = client.get("/v1/tasks/", headers={"host": "elsewhere"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


class TestOneAfterAnother:
    def test_a_large_one_and_half_of_the_next(self, client: httpx.Client) -> None:
        large = post(json.dumps({"inputs": ["x" * 100_000]}).encode())
        next_one = last(post(BODY))
        assert statuses(client, large + next_one[:10], next_one[10:]) == [200, 200]

    @pytest.mark.parametrize(
        "wrong",
        [
            b"GARBAGE\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ],
    )
    def test_what_comes_before_something_wrong_is_answered(
        self, client: httpx.Client, wrong: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert statuses(client, post(BODY) + post(BODY) + wrong) == [200, 200]
        assert statuses(client, post(BODY) + wrong) == [200]
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    def test_half_a_request_does_not_end_the_one_before_it(
        self, head_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with running(head_bundle, read_timeout_s=0.3) as (client, server):
            hold, predict = threading.Event(), server.engine.encoder.predict

            def slow(*arguments: Any) -> Any:
                hold.wait(30)
                return predict(*arguments)

            monkeypatch.setattr(server.engine.encoder, "predict", slow)
            with connect(client) as connection:
                connection.sendall(post(BODY) + b"GET /v1")
                time.sleep(1.0)
                hold.set()
                assert [r.status for r in parse(b"", read_all(connection))] == [200]

    def test_a_client_of_several_that_leaves_is_no_defect(
        self, head_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(head_bundle) as (client, server):
            hold, predict = threading.Event(), server.engine.encoder.predict

            def slow(*arguments: Any) -> Any:
                hold.wait(30)
                return predict(*arguments)

            monkeypatch.setattr(server.engine.encoder, "predict", slow)
            with connect(client) as connection:
                connection.sendall(post(BODY) * 3)
                deadline_s = time.monotonic() + 30
                while metric(client, "bitheads_requests_in_flight") < 2:
                    assert time.monotonic() < deadline_s
            while metric(client, "bitheads_requests_in_flight") > 1:
                assert time.monotonic() < deadline_s
            hold.set()
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


class TestWhoKeepsAConnection:
    def test_by_a_body_that_was_refused(self, head_bundle: Path) -> None:
        with running(head_bundle, read_timeout_s=0.3) as (client, _), connect(client) as held:
            held.sendall(
                b"DELETE /v1/tasks/topic HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"
            )
            assert b" 401 " in held.recv(1 << 16)
            deadline_s = time.monotonic() + 30
            while not is_gone(held, 50):
                held.sendall(b"x")
                assert time.monotonic() < deadline_s

    def test_by_an_answer_that_is_not_read(
        self, head_bundle: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = {"read_timeout_s": 0.3, "request_timeout_s": 1.0, "max_connections": 2}
        with running(head_bundle, **options) as (client, _), socket.socket() as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            held.connect((client.base_url.host, client.base_url.port))
            held.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
            deadline_s = time.monotonic() + 30
            while client.get("/health/live").status_code != 503:  # the second connection
                assert time.monotonic() < deadline_s
            while client.get("/health/live").status_code != 200:  # the first is gone
                assert time.monotonic() < deadline_s
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    def test_by_trailers(self, head_bundle: Path) -> None:
        """They are read and forgotten, until the body's time is up."""
        seen: list[Any] = []
        with running(head_bundle, read_timeout_s=1.0) as (client, server):
            app = server._guard._app

            async def note(scope: Any, receive: Any, send: Any) -> None:
                seen.append(scope["headers"])
                await app(scope, receive, send)

            server._guard._app = note
            content = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            content += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
            assert statuses(client, content, b"X-Trailer: y\r\n" * 5000 + b"\r\n") == [200]
        assert len(seen[-1]) == 3


class TestMemory:
    @pytest.mark.parametrize(
        ("path", "content"),
        [
            ("predict", b'{"inputs":[' + b"1," * 1_000_000 + b"1]}"),
            ("predict", b'{"inputs":"a","tasks":[' + b"1," * 1_000_000 + b"1]}"),
            ("features", b'{"inputs":[' + b"[]," * 1_000_000 + b"[]]}"),
            ("predict_features", b'{"spec_id":"a","features":[' + b"1," * 1_000_000 + b"1]}"),
            ("predict", b'{"inputs":"a"' + b"".join(b',"%x":1' % i for i in range(200_000)) + b"}"),
        ],
    )
    def test_of_many_errors_in_one_body(self, path: str, content: bytes) -> None:
        """Two megabytes that are wrong at every other byte took two gigabytes."""
        from bitheads.engine.errors import InputError
        from bitheads.engine.serve import messages

        kinds = {
            "predict": messages.PredictRequest,
            "features": messages.FeaturesRequest,
            "predict_features": messages.PredictFeaturesRequest,
        }
        with pytest.raises(InputError) as found:
            messages.parse(kinds[path], content)
        assert len(str(found.value)) < 1000
        cause = found.value.__context__
        assert cause is not None
        assert "fields" in str(found.value) or cause.error_count() < 5  # type: ignore[attr-defined]

    def test_only_heads_may_be_as_large_as_heads(self, head_bundle: Path) -> None:
        options = {"max_body_bytes": 1000, "max_head_bytes": 100_000}
        with running(head_bundle, **options) as (client, _):
            assert client.put("/nowhere", content=b"x" * 2000).status_code == 413
            headers = {"authorization": f"Bearer {ADMIN_KEY}"}
            sent = client.put("/v1/tasks/x", content=b"x" * 2000, headers=headers)
            assert sent.status_code == 422


def test_too_many_connections_have_an_error_like_any_other(head_bundle: Path) -> None:
    with running(head_bundle, max_connections=2) as (client, _), connect(client):
        time.sleep(0.1)
        response = client.get("/v1/tasks")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "too_many_connections"
        assert response.headers["retry-after"] == "1"
