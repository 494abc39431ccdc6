"""Requests that are wrong as HTTP: from right ones, by a few changes of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

METHODS = (
    b"get",
    b"GETT",
    b"",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PATCH",
    b"DELETE",
    b"PUT",
    b"PRI",
    b"M-SEARCH",
    b"G\0T",
    b"A" * 5000,
)
TARGETS = (
    b"*",
    b"//",
    b"/%",
    b"/%zz/%0",
    b"/%00",
    b"/%0d%0ax: y",
    b"/%ff%fe",
    b"/%ed%a0%80",
    b"/\xff\xfe",
    b"/v1/../v1/tasks",
    b"/v1/tasks/",
    b"/v1//tasks",
    b"/v1/tasks/%2e%2e",
    b"/v1/tasks/a%0a",
    b"/v1/tasks?\xff\xfe",
    b"/nowhere?\xff",
    b"/nowhere#x",
    b"/nowhere?a=%",
    b"/v2/models/%00/infer",
    b"/v2/models/tiny/versions/99999999999999999999",
    b"http://",
    b"http://[/",
    b"http://x:99999999/v1/tasks",
    b"https://[::1]/nowhere",
    b"x",
    b"/a b",
    b"/" + b"a" * 70_000,
    b"/?" + b"a=b&" * 5000,
)
VERSIONS = (
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/9.9",
    b"HTTP/1.1 x",
    b"HTTP",
    b"",
    b"RTSP/1.0",
)
HEADERS = (
    b"Host: [",
    b"Host: [::1",
    b"Host: a/b?c#d",
    b"Host: x:99999",
    b"Host: \xff\xfe",
    b"Host:",
    b"Host: x y",
    b"Content-Length: -1",
    b"Content-Length: 1e3",
    b"Content-Length: 0x10",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: 0",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 18446744073709551615",
    b"Content-Length: 9000000000",
    b"Content-Length: " + b"0" * 5000 + b"5",
    b"Content-Length : 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Expect: 200-maybe",
    b"Upgrade: websocket\r\nConnection: upgrade",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAR",
    b"Connection: keep-alive",
    b"Connection: \0",
    b"Authorization: Bearer",
    b"Authorization: Bearer \xff\xff",
    b"Authorization: " + b"x" * 10_000,
    b"Content-Type: application/json; charset=utf-99",
    b"Content-Type: \xff",
    b"Content-Type: multipart/form-data",
    b"Content-Encoding: gzip",
    b"X-Request-ID: \x7f",
    b"X-Request-ID: a\r\n b",
    b"X-Request-ID: caf\xe9",
    b"X-Request-ID: " + b"i" * 100,
    b"Inference-Header-Content-Length: " + b"9" * 5000,
    b"Inference-Header-Content-Length: -1",
    b"Inference-Header-Content-Length: \xb2",
    b"Inference-Header-Content-Length: 1",
    b"Range: bytes=0-1",
    b"no colon here",
    b": no name",
    b"\0: x",
    b"a\0b: x",
    b"x: a\0b",
    b" folded: x",
    b"X: " + b"y" * 60_000,
    b"Cookie: " + b"a=b; " * 2000,
    b"\r\n".join(b"X-%d: y" % i for i in range(500)),
)
CHUNKS = (
    b"zz\r\n",
    b"-1\r\nx\r\n",
    b"ffffffffffffffffff\r\nx\r\n",
    b"5\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabcdef\r\n0\r\n\r\n",
    b"5;" + b"e" * 5000 + b"=1\r\nabcde\r\n0\r\n\r\n",
    b"0\r\n" + b"T: x\r\n" * 200 + b"\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    b"5\nabcde\n0\n\n",
    b"\r\n",
)
TRAILING = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0" * 100,
    b"\r\n\r\n\r\n",
    b"x",
    b"GET /nowhere HTTP/1.1\r\n",
)


@dataclass
class Request:
    """One request in its parts; `encode` puts them together whatever they are."""

    method: bytes
    target: bytes
    body: bytes = b""
    version: bytes = b"HTTP/1.1"
    headers: list[bytes] = field(default_factory=lambda: [b"Host: x", b"Connection: close"])
    has_length: bool = True
    tail: bytes = b""

    def encode(self) -> bytes:
        lines = [b" ".join([self.method, self.target, self.version]), *self.headers]
        if self.has_length and (self.body or self.method in (b"POST", b"PUT")):
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", self.body + self.tail])


def malformed(rng: random.Random, valid: Callable[[], Request]) -> bytes:
    """One to three changes of a valid request; at times several requests at once."""
    count = rng.choice([1] * 8 + [2, 3])
    parts = []
    for _ in range(count):
        request = valid()
        if count > 1:
            request.headers = [b"Host: x"]
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            rng.choice(_CHANGES)(rng, request)
        parts.append(request.encode())
    data = b"".join(parts)
    return _bytes(rng, data) if rng.random() < 0.25 else data


def chunked(rng: random.Random, request: Request) -> None:
    """The body in chunks, and at times in wrong ones."""
    pieces = []
    rest = request.body
    while rest:
        size = rng.randint(1, len(rest))
        pieces.append(b"%x\r\n%s\r\n" % (size, rest[:size]))
        rest = rest[size:]
    pieces.append(rng.choice(CHUNKS) if rng.random() < 0.7 else b"0\r\n\r\n")
    if len(pieces) > 1 and rng.random() < 0.3:
        pieces.insert(rng.randrange(len(pieces)), rng.choice(CHUNKS))
    request.body = b"".join(pieces)
    request.has_length = rng.random() < 0.15  # both: how requests are smuggled
    request.headers.append(b"Transfer-Encoding: chunked")


def _method(rng: random.Random, request: Request) -> None:
    request.method = rng.choice(METHODS)


def _target(rng: random.Random, request: Request) -> None:
    request.target = rng.choice(TARGETS)


def _version(rng: random.Random, request: Request) -> None:
    request.version = rng.choice(VERSIONS)


def _header(rng: random.Random, request: Request) -> None:
    request.headers.insert(rng.randint(0, len(request.headers)), rng.choice(HEADERS))


def _length(rng: random.Random, request: Request) -> None:
    request.has_length = False
    size = len(request.body) + rng.choice([-3, -1, 1, 10, 10_000_000])
    request.headers.append(b"Content-Length: %d" % size)


def _truncated(rng: random.Random, request: Request) -> None:
    data = request.encode()
    head, _, body = data.partition(b"\r\n\r\n")
    request.headers = head.split(b"\r\n")[1:]
    request.has_length = False
    request.body = body[: rng.randint(0, len(body))]


def _tail(rng: random.Random, request: Request) -> None:
    request.tail = rng.choice(TRAILING)


def _garbage(rng: random.Random, request: Request) -> None:
    request.body = rng.randbytes(rng.choice([1, 10, 1000, 70_000]))


_CHANGES = (
    _method,
    _target,
    _version,
    _header,
    _header,
    _header,
    _length,
    _truncated,
    _tail,
    _garbage,
    chunked,
)


def _bytes(rng: random.Random, data: bytes) -> bytes:
    """Anywhere in it: flipped, put in, taken out, cut off, other ends of lines."""
    at = rng.randint(0, len(data))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at] + rng.randbytes(rng.choice([1, 1, 4, 100])) + data[at:]
    if kind == 1:
        return data[:at] + data[at + rng.randint(1, 8) :]
    if kind == 2:
        return data[:at]
    if kind == 3:
        return data.replace(b"\r\n", rng.choice([b"\n", b"\r", b"\n\r"]), rng.randint(1, 9))
    if kind == 4:
        return rng.randbytes(rng.randint(1, 300)) + data
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)
