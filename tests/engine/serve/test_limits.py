"""What a server refuses, and clients that behave badly."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ADMIN_KEY, running

from bitheads.engine.serve.admission import network_of

API_KEY = "an-api-key-of-the-tests"


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def metric(client: httpx.Client, name: str) -> float:
    shown = client.get("/metrics").text
    found = re.search(rf"^{re.escape(name)} ([\d.e+]+)$", shown, re.MULTILINE)
    assert found, name
    return float(found[1])


def rejected(client: httpx.Client, reason: str) -> float:
    return metric(client, f'bitheads_rejections_total{{reason="{reason}"}}')


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)


def post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


BODY = json.dumps({"inputs": ["A text."]}).encode()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


class TestSizes:
    def test_of_a_body(self, head_bundle: Path) -> None:
        with running(head_bundle, max_body_bytes=1000) as (client, _):
            text = "x" * 2000
            assert error(client.post("/v1/predict", json={"inputs": text})) == (413, "too_large")

            def chunks() -> Any:  # no Content-Length
                for _ in range(20):
                    yield b"x" * 100

            assert error(client.post("/v1/predict", content=chunks())) == (413, "too_large")
            assert rejected(client, "too_large") == 2
            assert client.post("/v1/predict", json={"inputs": "x"}).status_code == 200

    def test_of_all_bodies(self, head_bundle: Path) -> None:
        with running(head_bundle, max_held_bytes=1500) as (client, _), connect(client) as held:
            held.sendall(post(b"x" * 1000, length=2000))
            deadline_s = time.monotonic() + 30
            while True:
                response = client.post("/v1/predict", content=b"y" * 1000)
                if response.status_code == 429:
                    break
                assert time.monotonic() < deadline_s
            assert int(response.headers["retry-after"]) >= 1
            held.close()
            while client.post("/v1/predict", json={"inputs": "y" * 900}).status_code != 200:
                assert time.monotonic() < deadline_s

    def test_of_texts(self, head_bundle: Path) -> None:
        with running(head_bundle, max_texts=3, max_chars=10) as (client, _):
            four = client.post("/v1/predict", json={"inputs": ["a"] * 4})
            assert error(four) == (413, "too_large")
            assert "--max-texts" in four.text
            long = client.post("/v1/predict", json={"inputs": [["a", "b" * 11]]})
            assert error(long) == (413, "too_large")
            assert "text 0: got 11 characters" in long.text
            assert client.post("/v1/predict", json={"inputs": ["a"] * 3}).status_code == 200

    def test_of_headers(self, head_bundle: Path) -> None:
        with running(head_bundle) as (client, _), connect(client) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            line = b"X-Y: " + b"y" * 1000 + b"\r\n"
            with pytest.raises((ConnectionError, TimeoutError)):
                connection.sendall(100_000 * line)
            assert client.get("/health/live").status_code == 200


class TestKeys:
    def test_one_of_several(self, head_bundle: Path) -> None:
        keys = (API_KEY, API_KEY[::-1])
        with running(head_bundle, api_keys=keys) as (client, _):
            body = {"inputs": "a"}
            assert error(client.post("/v1/predict", json=body)) == (401, "unauthorized")
            for given in ("Bearer wrong", f"Basic {API_KEY}", API_KEY, f"Bearer {API_KEY}x"):
                headers = {"authorization": given}
                assert client.post("/v1/predict", json=body, headers=headers).status_code == 401
            for key in (*keys, ADMIN_KEY):
                headers = {"authorization": f"Bearer {key}"}
                assert client.post("/v1/predict", json=body, headers=headers).status_code == 200
            assert client.get("/v1/tasks").status_code == 401
            assert client.get("/v2/models/tiny").status_code == 401
            for path in ("/", "/health/ready", "/health/live", "/v2/health/ready", "/metrics"):
                assert client.get(path).status_code == 200
            # A key for asking is none for changing.
            headers = {"authorization": f"Bearer {API_KEY}"}
            assert client.delete("/v1/tasks/topic", headers=headers).status_code == 401
            assert rejected(client, "unauthorized") == 8

    def test_one_key_is_one_client_however_it_is_written(
        self, head_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or who spells "bearer" in 64 ways, or puts blanks behind it, has as many shares."""
        asked: list[Hashable] = []
        keys = (API_KEY, API_KEY[::-1])
        with running(head_bundle, api_keys=keys) as (client, server):
            monkeypatch.setattr(server._scheduler, "check_room", asked.append)
            for scheme in ("Bearer", "bearer", "BEARER", "bEaReR", "Bearer ", "Bearer    "):
                headers = {"authorization": f"{scheme} {API_KEY}"}
                answer = client.post("/v1/predict", json={"inputs": "a"}, headers=headers)
                assert answer.status_code == 200
            assert len({*asked}) == 1
            headers = {"authorization": f"Bearer {keys[1]}"}
            client.post("/v1/predict", json={"inputs": "a"}, headers=headers)
            assert len({*asked}) == 2


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8::a:b:c:d", True),
        ("2001:db8::a:b:c:d", "2001:db8:0:0:ffff::", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "testclient", False),
    ],
)
def test_whose_an_address_is(one: str, other: str, is_same: bool) -> None:
    """An address of IPv6 is written with its zeros left out, wherever they are."""
    assert (network_of(one) == network_of(other)) == is_same


class TestTime:
    def test_slow_headers(self, head_bundle: Path) -> None:
        with running(head_bundle, read_timeout_s=0.3) as (client, _):
            for start in (b"", b"POST /v1/predict HT"):
                with connect(client) as connection:
                    connection.sendall(start)
                    with suppress(ConnectionResetError):
                        assert read_all(connection) == b""
            # An open connection that has been answered may rest.
            client.get("/health/live")
            time.sleep(0.6)
            assert client.get("/health/live").status_code == 200

    def test_a_slow_body(self, head_bundle: Path) -> None:
        with running(head_bundle, read_timeout_s=0.3) as (client, _):
            with connect(client) as connection:
                connection.sendall(post(BODY[:5], len(BODY)))
                answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert rejected(client, "timeout") == 1

    def test_a_slow_answer(self, head_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with running(head_bundle, request_timeout_s=0.3) as (client, server):
            hold, release = threading.Event(), server.engine.encoder.predict

            def slow(*arguments: Any) -> Any:
                hold.wait(30)
                return release(*arguments)

            monkeypatch.setattr(server.engine.encoder, "predict", slow)
            response = client.post("/v1/predict", json={"inputs": "a"})
            assert error(response) == (503, "timeout")
            assert int(response.headers["retry-after"]) >= 1
            hold.set()
            assert client.post("/v1/predict", json={"inputs": "a"}).status_code == 200


class TestBackpressure:
    def test_a_full_queue_is_429(self, head_bundle: Path) -> None:
        """Every request is answered or refused, and what is answered is right."""
        words = "Some words that are several tokens. " * 3
        options = {"max_queue_tokens": 300, "max_batch_tokens": 64, "cache_bytes": 0}
        with running(head_bundle, **options) as (client, _):

            def ask(number: int) -> httpx.Response:
                texts = [f"{words}{4 * number + i}" for i in range(4)]
                return client.post("/v1/predict", json={"inputs": texts})

            with ThreadPoolExecutor(24) as pool:
                found = list(pool.map(ask, range(300)))
            refused = [r for r in found if r.status_code == 429]
            answered = {i: r.json() for i, r in enumerate(found) if r.status_code == 200}
            assert len(refused) + len(answered) == 300
            assert refused
            assert answered
            assert all(answer == ask(i).json() for i, answer in answered.items())
            assert all(int(r.headers["retry-after"]) >= 1 for r in refused)
            assert rejected(client, "queue_full") == len(refused)
            assert metric(client, "bitheads_queued_tokens") == 0

    def test_too_many_connections_are_503(self, head_bundle: Path) -> None:
        with running(head_bundle, max_connections=4) as (client, _):
            held = [connect(client) for _ in range(6)]
            time.sleep(0.1)
            assert client.get("/health/live").status_code == 503
            for connection in held:
                connection.close()
            deadline_s = time.monotonic() + 30
            while client.get("/health/live").status_code != 200:
                assert time.monotonic() < deadline_s


class TestClientsThatLeave:
    def test_their_texts_are_not_encoded(
        self, head_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with running(head_bundle, max_batch_tokens=32) as (client, server):
            hold, predict = threading.Event(), server.engine.encoder.predict

            def slow(*arguments: Any) -> Any:
                hold.wait(30)
                return predict(*arguments)

            monkeypatch.setattr(server.engine.encoder, "predict", slow)
            connections = [connect(client) for _ in range(5)]
            for i, connection in enumerate(connections):
                texts = [f"Some text of {20 * i + j} tokens." for j in range(20)]
                connection.sendall(post(json.dumps({"inputs": texts}).encode()))
            deadline_s = time.monotonic() + 30
            while metric(client, "bitheads_requests_in_flight") < 6:
                assert time.monotonic() < deadline_s
            for connection in connections:
                connection.close()
            while rejected(client, "cancelled") < 5:
                assert time.monotonic() < deadline_s
            hold.set()
            assert client.post("/v1/predict", json={"inputs": "a"}).status_code == 200
            # One batch was running, and the last request's.
            assert metric(client, "bitheads_texts_total") < 20
            assert metric(client, "bitheads_queued_tokens") == 0

    def test_half_closed_and_garbage(self, head_bundle: Path) -> None:
        with running(head_bundle) as (client, _):
            sent = [
                b"",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
                b"GET / HTTP/9.9\r\n\r\n",
                b"POST /v1/predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                b"POST /v1/predict HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                b"POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET http:// HTTP/1.1\r\n\r\n",
                b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nHost: x\r\n\r\n",
                post(BODY[:4], len(BODY)),
                post(BODY),
                post(BODY) * 5,
            ]
            for content in sent:
                for half in (True, False):
                    with connect(client) as connection:
                        connection.sendall(content)
                        if half:
                            connection.shutdown(socket.SHUT_WR)
                            try:
                                answer = read_all(connection)
                            except ConnectionResetError:
                                answer = b""
                            assert b"HTTP/1.1 500" not in answer
            assert client.post("/v1/predict", content=BODY).status_code == 200

    def test_one_that_does_not_read(self, head_bundle: Path) -> None:
        with running(head_bundle, request_timeout_s=1.0) as (client, _):
            body = json.dumps({"inputs": ["A text of tokens. " * 6] * 900}).encode()
            head = f"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            with connect(client) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                connection.sendall((head.encode() + body) * 4)
                deadline_s = time.monotonic() + 30
                while metric(client, "bitheads_requests_in_flight") > 1:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.05)
            assert client.post("/v1/predict", content=BODY).status_code == 200


def test_pipelined_requests_are_answered_in_order(head_bundle: Path) -> None:
    with running(head_bundle) as (client, _), connect(client) as connection:
        bodies = [json.dumps({"inputs": ["x"] * n}).encode() for n in (1, 2, 3)]
        connection.sendall(b"".join(map(post, bodies)))
        seen = b""
        while seen.count(b'"usage"') < 3:
            seen += connection.recv(1 << 16)
        counts = [int(n) for n in re.findall(rb'"usage":{"texts":(\d)', seen)]
        assert counts == [1, 2, 3]
