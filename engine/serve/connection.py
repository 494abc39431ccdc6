"""uvicorn's connection with what it leaves out: limits in bytes and in time, errors in our form."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bitheads.engine.serve.errors import HttpError

MAX_HEADER_BYTES = 64 << 10
"""Bytes of a request's headers, at most, after those that come at once with its first byte."""


class Connection(HttpToolsProtocol):
    """A connection whose headers must come in time and be no larger than they may be.

    Attributes:
        read_timeout_s: for the headers; for the rest of a body that was refused; and for a client
            to take what is left for it after the end.
    """

    read_timeout_s: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._header_bytes = 0
        self._begun = 0  # requests
        self._amid_headers, self._amid_body = True, False
        self._is_late: asyncio.TimerHandle | None = None
        self._data, self._is_upgrading = b"", False
        self._running: RequestResponseCycle | None = None
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._running is not None:  # uvicorn tells only the last of pipelined requests
            _leave(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        begun, self._data = self._begun, data
        super().data_received(data)
        # The bytes that a request begins in may be the end of another: only later ones are counted.
        if self._amid_headers and self._begun == begun:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("Headers too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun += 1
        self._header_bytes = 0
        self._amid_headers = True
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._amid_headers:  # trailers are not read: they could be any number
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._amid_headers, self._amid_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._amid_body = False
        if not self._amid_headers:
            self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()
        elif self._amid_body and self.cycle.response_complete:
            self._start_timer()  # it was refused, and nobody else waits for the rest of it

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_later()

    def send_400_response(self, msg: str) -> None:
        """Answers what was read before; what is wrong comes after it."""
        if self.transport.is_closing():
            return
        if self._running is not None and not self._running.response_complete:
            if not self._amid_body or self._running is not self.cycle:
                if self._amid_body:
                    self.pipeline.popleft()
                    self._amid_body = False
                last = self.pipeline[0][0] if self.pipeline else self._running
                last.keep_alive = False
                self.cycle = last
                self.flow.pause_reading()
                return
            _leave(self._running)
            if self._running.response_started:
                self.transport.abort()
                return
        body = HttpError(400, "bad_request", msg).body("")
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()
        self._abort_later()

    def _should_upgrade(self) -> bool:
        """Whether `handle_websocket_upgrade` goes on with the request."""
        return bool(self.parser.get_method() != b"CONNECT")

    def handle_websocket_upgrade(self) -> None:
        """Goes on as if no other protocol had been offered: Java's client offers HTTP/2 each time.

        The parser takes the body for that protocol's. So another one begins with the same headers.
        """
        if self._is_upgrading:  # pipelined ones would go as deep as a client likes
            self.send_400_response("More than one Upgrade at once.")
            return
        error = sys.exc_info()[1]
        assert isinstance(error, httptools.HttpParserUpgrade)
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        rest = self._data[error.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._is_upgrading = True
        try:
            self.data_received(b"\r\n".join([*lines, b"", rest]))
        finally:
            self._is_upgrading = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Callable[..., Any]) -> None:
        app = _unavailable if app is service_unavailable else app

        async def noted(*arguments: Any) -> None:
            try:
                await app(*arguments)
            finally:
                if self._running is cycle:
                    self._running = None
                if not cycle.response_complete and self.flow.write_paused:
                    _leave(cycle)  # it reads nothing: not even what uvicorn would send it now
                    self.transport.abort()
                elif not cycle.response_complete:  # uvicorn closes it now, unless the client did
                    self._abort_later()

        self._running = cycle
        super()._start_asgi_task(cycle, noted)

    def _abort_later(self) -> None:
        """A client that does not read keeps a closing connection open: not for long."""
        self.loop.call_later(self.read_timeout_s, self.transport.abort)

    def _start_timer(self) -> None:
        if self._is_late is None:
            self._is_late = self.loop.call_later(self.read_timeout_s, self._late)

    def _stop_timer(self) -> None:
        if self._is_late is not None:
            self._is_late.cancel()
            self._is_late = None

    def _late(self) -> None:
        self._is_late = None
        if self._amid_headers and self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()  # what came before is to be answered yet
        elif not self.transport.is_closing():
            self.transport.abort()


def _leave(cycle: RequestResponseCycle) -> None:
    """Tells a request's app that nobody waits for its answer."""
    cycle.disconnected = True
    cycle.message_event.set()


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """Instead of uvicorn's: the same in the form of all errors."""
    error = HttpError(
        503,
        "too_many_connections",
        "Too many connections. Try again later, or start the server with a larger "
        "--max-connections.",
        retry_after_s=1.0,
        headers={"connection": "close"},
    )
    await error.response(scope)(scope, receive, send)
