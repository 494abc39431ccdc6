"""Compressed bodies: those of requests, bounded, and those of answers where that is asked for."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from bitheads.engine.serve.errors import HttpError, too_large

ACCEPTED = "gzip, deflate"
WINDOW_OF = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content-Encoding -> zlib's wbits."""
WITHOUT_HEADER = -15
"""What some send as deflate: the stream alone."""

FAST = 1
"""The level of compression: the next ones take twice the time for a few per cent less."""
INLINE_BYTES = 32 << 10
"""Bytes that the event loop compresses by itself: a thread costs as much."""


def content_encoding(headers: Mapping[bytes, bytes]) -> str | None:
    """A request's Content-Encoding, None if its body is as it is. Raises HttpError for others."""
    given = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if given in ("", "identity"):
        return None
    if given not in WINDOW_OF:
        raise HttpError(
            415,
            "unsupported_encoding",
            f"Content-Encoding: got {given:.100}, expected one of {ACCEPTED}. Send the body "
            "compressed by one of these, or as it is.",
            headers={"accept-encoding": ACCEPTED},
        )
    return given


def decoded(body: bytes, encoding: str, limit: int, option: str) -> bytes:
    """What was compressed, of at most `limit` bytes, which `option` names.

    Raises HttpError for more, and for what is no such stream, was cut short, or has more behind it.
    """
    try:
        try:
            return _inflated(body, WINDOW_OF[encoding], limit, option)
        except zlib.error:
            if encoding != "deflate":
                raise
            return _inflated(body, WITHOUT_HEADER, limit, option)
    except zlib.error as error:
        raise HttpError(
            400,
            "bad_request",
            f"The body is no {encoding}, which Content-Encoding says it is: {error}.",
        ) from None


def _inflated(body: bytes, wbits: int, limit: int, option: str) -> bytes:
    if not body:
        return body
    stream = zlib.decompressobj(wbits)
    found = stream.decompress(body, limit + 1)
    if len(found) > limit:
        raise too_large("body", "more after decompression", f"{limit} bytes", option)
    if not stream.eof:
        raise zlib.error("it was cut short")
    # A second stream is legal, but each could be of twenty bytes, and there could be many.
    if stream.unused_data:
        raise zlib.error("there is more behind the stream")
    return found


class GzipAnswers:
    """An ASGI app around another: its larger answers are gzip for clients that accept that."""

    def __init__(self, app: ASGIApp, min_bytes: int) -> None:
        self._app = app
        self._min_bytes = min_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _accepts_gzip(scope):
            await self._app(scope, receive, send)
            return
        start: MutableMapping[str, Any] | None = None

        async def send_compressed(message: MutableMapping[str, Any]) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                begin, start = start, None
                body = message.get("body", b"")
                headers = MutableHeaders(raw=list(begin["headers"]))
                is_whole = not message.get("more_body", False) and "content-encoding" not in headers
                if is_whole and len(body) >= self._min_bytes:
                    body = await _compressed(body)
                    headers["content-encoding"] = "gzip"
                    headers["content-length"] = str(len(body))
                    headers.add_vary_header("Accept-Encoding")
                    message = {**message, "body": body}
                    begin = {**begin, "headers": headers.raw}
                await send(begin)
            await send(message)

        await self._app(scope, receive, send_compressed)


async def _compressed(body: bytes) -> bytes:
    if len(body) <= INLINE_BYTES:
        return gzip.compress(body, FAST, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, FAST, mtime=0)


def _accepts_gzip(scope: Scope) -> bool:
    """Whether a request says so; `gzip;q=0` says that it does not."""
    given = ",".join(Headers(scope=scope).getlist("accept-encoding"))
    for part in given.lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            number = quality.partition("=")[2].strip() or "1"
            return number.strip("0.") != ""
    return False
