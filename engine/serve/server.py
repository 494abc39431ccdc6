"""uvicorn with what it leaves out: draining, the limits of `connection`, and gRPC's port."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from types import FrameType

import uvicorn

from bitheads.engine.errors import BackendError, InputError
from bitheads.engine.serve.app import Server
from bitheads.engine.serve.connection import Connection
from bitheads.engine.serve.settings import Settings

BACKLOG = 2048
OTHER_FILES = 1024
"""Open files beside the connections that are served: connections that are told that there are too
many, and what the process itself has open."""

KEEP_ALIVE_S = 60
"""Seconds that a connection is kept: more than most proxies keep theirs, so that they close it."""

SWITCH_S = 0.001
"""Seconds that a thread of the server keeps the interpreter before another may have it: with
Python's own 5 ms, threads that read and write large requests keep the event loop waiting for 100
ms."""

logger = logging.getLogger("bitheads.serve")


class Uvicorn(uvicorn.Server):
    """Ends well on SIGTERM and Ctrl-C: what was accepted is answered. A second Ctrl-C ends it.

    It ends by itself if the server cannot answer any more (`Server.failure`).
    """

    def __init__(
        self, config: uvicorn.Config, server: Server, is_serving: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self._server = server
        self._is_serving = is_serving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._server.drain()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._server.grpc is not None:
            await self._server.grpc.start()
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(BACKLOG)  # whatever uvicorn told the system
        if self.started and self._is_serving is not None:
            self._is_serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._server.grpc is not None:  # before the engine is closed
            await self._server.grpc.stop()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._server.failure is not None


def allow_connections(settings: Settings) -> None:
    """Raises this process's limit of open files, as far as it may. Each connection is one.

    Raises InputError if that is not enough: connections past the limit would hang unanswered.
    """
    wanted, ports = settings.max_connections, 1 if settings.grpc_port is None else 2
    needed = ports * wanted + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise InputError(
                f"--max-connections: got {wanted}, but this process may open {hard} files. Lower "
                f"it to {(hard - OTHER_FILES) // ports}, or type: ulimit -Hn {needed}"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def listen(settings: Settings) -> socket.socket:
    """The socket; before anything takes long. Raises InputError if the address cannot be had."""
    try:
        return socket.create_server(
            (settings.host, settings.port), family=settings.family, backlog=BACKLOG
        )
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise InputError(
            f"--host {settings.host} --port {settings.port}: {reason}. Choose another port, or end "
            "what listens there."
        ) from error


def check_certificate(settings: Settings) -> None:
    """Raises InputError for a certificate, or its key, that cannot be used."""
    if settings.tls_cert is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password that is none: one that is asked for at the terminal would wait for ever.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:
        raise InputError(
            f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: {error}. Pass a "
            "certificate and its key in PEM, the key without a password."
        ) from error


def url(listening: socket.socket, settings: Settings) -> str:
    host, port = listening.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def check_end(server: Server) -> None:
    """Raises BackendError if the server ended by itself."""
    if server.failure is not None:
        raise BackendError(
            f"the server ended: a lane of the encoder did ({server.failure!r}), see its log. "
            "Start it again."
        ) from server.failure


def make(
    server: Server, settings: Settings, is_serving: Callable[[], None] | None = None
) -> Uvicorn:
    """Its `run`, given sockets, serves until a signal, and then until all is answered.

    Args:
        is_serving: called once it does; where other processes listen to the same sockets.
    """

    class Limited(Connection):
        read_timeout_s = settings.read_timeout_s

    config = uvicorn.Config(
        server.asgi,
        http=Limited,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        # So many are taken at a time: with more, one process would take all that wait.
        backlog=BACKLOG if is_serving is None else 1,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return Uvicorn(config, server, is_serving)
