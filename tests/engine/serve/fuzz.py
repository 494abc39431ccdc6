"""Sends malformed requests to a server, from many threads, and says what broke.

What must hold for every answer: it is whole HTTP, its status is below 500 or 503, it is JSON where
it says so, and errors have the documented form. Now and then a right request must have the same
answer as ever.
"""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fuzz_bodies
import fuzz_heads
import fuzz_http
import httpx
from fuzz_http import Request

THREADS = 8
WAIT_S = 0.2
"""How long an answer is waited for where there need not be one."""

CLOSED_S = 20.0
"""A server closes a connection, on which it was sent half a request, much sooner."""

EVERY = 100
"""Cases between two requests whose answers are compared."""

KEY_HEADER = "Authorization: Bearer {}"


@dataclass(frozen=True)
class Reply:
    """One answer: what its body is, is None where it cannot be told."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Fuzzer:
    """Cases from a seed.

    Attributes:
        seed: of what `run` sends next.
        statuses: how many answers there were of each, and 0 for connections without one.
        defects: what broke, each with the bytes that did it.
    """

    def __init__(self, url: str, admin_key: str, heads: Sequence[bytes], seed: object) -> None:
        """heads: files whose tasks are not loaded."""
        address = urlsplit(url)
        assert address.hostname is not None
        self._address = (address.hostname, address.port)
        self._url = url
        self._admin = KEY_HEADER.format(admin_key).encode()
        self._heads = heads
        self.seed = seed
        with httpx.Client(base_url=url, timeout=60) as client:
            kept = client.post("/v1/features", json={"inputs": "A"}).json()
        self._bodies = fuzz_bodies.valid_bodies(kept["spec_id"], bytes(kept["code_bytes"]))
        self._expected = self._reference()
        self.statuses: Counter[int] = Counter()
        self.defects: list[str] = []

    def run(self, requests: int) -> None:
        """So many requests at least."""
        with ThreadPoolExecutor(THREADS) as pool:
            share = -(-requests // THREADS)
            for done in [pool.submit(self._work, worker, share) for worker in range(THREADS)]:
                done.result()

    def _work(self, worker: int, requests: int) -> None:
        rng = random.Random(f"{self.seed} {worker}")
        sent = cases = 0
        while sent < requests and len(self.defects) < 20:
            for request in self._case(rng, f"fuzz-{worker}"):
                sent += 1
                self._send(rng, request)
            cases += 1
            if cases % EVERY == 0 and self._reference() != self._expected:
                self.defects.append(f"seed {self.seed}: another answer after {sent} requests")

    def _reference(self) -> Any:
        body = {"inputs": ["A text.", "Why?"], "tasks": ["topic", "mood"]}
        body["return_probabilities"] = True  # type: ignore[assignment]
        response = httpx.post(f"{self._url}/v1/predict", json=body, timeout=60)
        assert response.status_code == 200, response.text
        return response.json()

    def _case(self, rng: random.Random, task: str) -> Iterator[bytes]:
        kind = rng.random()
        if kind < 0.4:
            yield fuzz_http.malformed(rng, lambda: self._valid(rng))
        elif kind < 0.75:
            path = rng.choice([*self._bodies])
            yield Request(b"POST", path.encode(), self._body(rng, path)).encode()
        elif kind < 0.85:
            body, header = fuzz_bodies.mutated_binary(rng)
            request = Request(b"POST", b"/v2/models/tiny/infer", body)
            request.headers.append(header)
            yield request.encode()
        else:
            yield from self._head_case(rng, task)

    def _head_case(self, rng: random.Random, task: str) -> Iterator[bytes]:
        """A head in, asked in every way, and out again."""
        path = f"/v1/tasks/{task}".encode()
        headers = [b"Host: x", b"Connection: close", self._admin]
        content = fuzz_heads.mutated(rng, rng.choice(self._heads), task)
        yield Request(b"PUT", path, content, headers=headers).encode()
        yield Request(b"GET", b"/v1/tasks").encode()
        for part in (b"", b"/config", b"/stats", b"/ready"):
            yield Request(b"GET", b"/v2/models/tiny" + part).encode()
        asked = {"inputs": ["A text."], "tasks": [task], "return_probabilities": True}
        yield Request(b"POST", b"/v1/predict", json.dumps(asked).encode()).encode()
        more = rng.choice(("_probabilities", "_value", "_accepted", "_out_of_domain"))
        for outputs in ([{"name": task}], [{"name": task + more}], []):
            text = self._bodies["/v2/models/tiny/infer"]["inputs"][0]
            infer = {"inputs": [text], "outputs": outputs}
            yield Request(b"POST", b"/v2/models/tiny/infer", json.dumps(infer).encode()).encode()
        yield Request(b"DELETE", path, headers=headers).encode()

    def _body(self, rng: random.Random, path: str) -> bytes:
        return fuzz_bodies.mutated(rng, self._bodies[path])

    def _valid(self, rng: random.Random) -> Request:
        kind = rng.randrange(8)
        if kind < 4:
            path = rng.choice([*self._bodies])
            return Request(b"POST", path.encode(), fuzz_bodies.encode(self._bodies[path]))
        if kind == 4:
            return Request(b"PUT", b"/v1/tasks/x", b"x" * 100)
        paths = (b"/", b"/v1/tasks", b"/v2", b"/metrics", b"/health/ready", b"/openapi.json")
        return Request(b"GET", rng.choice(paths))

    def _send(self, rng: random.Random, data: bytes) -> None:
        received = b""
        # No answer is in time for every half request; that the connection ends is seen for some.
        waits_s = CLOSED_S if rng.random() < 0.003 else WAIT_S
        replies: list[Reply] = []
        is_closed = False
        try:
            with socket.create_connection(self._address, timeout=CLOSED_S) as connection:
                with suppress(OSError):  # refused before it was there
                    connection.sendall(data)
                connection.settimeout(waits_s)
                while True:
                    try:
                        part = connection.recv(1 << 16)
                    except TimeoutError:
                        break
                    except OSError:
                        part = b""
                    is_closed = not part
                    received += part
                    if is_closed:
                        break
                    replies = parse(data, received)
                    if replies and replies[-1].headers.get(b"connection") == b"close":
                        break
            replies = parse(data, received)
        except (ValueError, AssertionError) as error:
            self.defects.append(f"{error!r}: {received[:500]!r} for {data[:3000]!r}")
        except OSError as error:
            self.defects.append(f"no connection ({error}) for {data[:3000]!r}")
        if not replies:
            self.statuses[0] += 1
            if waits_s == CLOSED_S and not is_closed:
                self.defects.append(f"not closed in {CLOSED_S} s: {data[:3000]!r}")
        for reply in replies:
            self.statuses[reply.status] += 1
            try:
                check(reply)
            except (ValueError, AssertionError, KeyError, TypeError) as error:
                shown = f"{reply.status} {reply.body[:300]!r}"
                self.defects.append(f"{error!r}: {shown} for {data[:3000]!r}")


def parse(data: bytes, received: bytes) -> list[Reply]:
    """The whole answers in what was received. Raises ValueError for what is no HTTP."""
    found: list[Reply] = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            break
        lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]*", lines[0])
        if not status:
            raise ValueError(f"no status line: {lines[0][:100]!r}")
        pairs = [line.partition(b": ") for line in lines[1:]]
        headers = {name: value for name, _, value in pairs}
        code = int(status[1])
        length = int(headers.get(b"content-length", b"0"))
        if b"HEAD " in data:  # which of several it was is not known
            return found
        if len(rest) < length:
            break
        if code >= 200:
            found.append(Reply(code, headers, rest[:length]))
        received = rest[length:]
    return found


def check(reply: Reply) -> None:
    """Raises AssertionError, ValueError, KeyError or TypeError for an answer that must not be."""
    assert reply.status < 500 or reply.status == 503, "status"
    kind = reply.headers.get(b"content-type", b"")
    if kind == b"application/json" and reply.body:
        content = json.loads(reply.body.decode(), parse_constant=_refuse)
        json.dumps(content, ensure_ascii=False).encode()  # no lone surrogates
        if reply.status >= 400:
            error = content["error"]
            if isinstance(error, str):
                assert {*content} <= {"error", "error_type"}, "error form"
            else:
                assert {*content} == {"error"}, "error form"
                assert {*error} == {"code", "message"}, "error form"
    elif reply.status >= 400:
        assert not reply.body, f"error as {kind!r}"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def rss_mb(pid: int) -> float:
    """What a process holds in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def log_defects(lines: list[str]) -> list[str]:
    """Lines of a server's log that no client should be able to bring about."""
    return [line for line in lines if "raceback" in line or '"level": "ERROR"' in line]


def wait_until_idle(url: str) -> None:
    """Until nothing is under way, for at most CLOSED_S."""
    deadline_s = time.monotonic() + CLOSED_S
    while "bitheads_requests_in_flight 1.0" not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() < deadline_s, "requests that never end"
        time.sleep(0.1)
