"""What stands between a socket and the routes: limits, keys, time, leaving, and the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from bitheads.engine.serve import docs_page
from bitheads.engine.serve.admission import Admission
from bitheads.engine.serve.encodings import content_encoding, decoded
from bitheads.engine.serve.ended import NOT_ANSWERED, Ended
from bitheads.engine.serve.errors import HttpError, internal, shutting_down, too_large
from bitheads.engine.serve.origins import foreign_name, is_loopback
from bitheads.engine.serve.settings import Settings

OPEN_PATHS = ("/", docs_page.PAGE, "/openapi.json", "/metrics")
OPEN_FOLDERS = (docs_page.FILES, "/health/", "/v2/health/")
"""Paths that need no key to be read, as all of /health needs none."""

BATCHED_PATHS = (
    "/v1/predict",
    "/v1/features",
    "/v1/embeddings",
    "/embed",
    "/similarity",
    "/predict",
    "/",
)
"""Paths of a POST that goes through the scheduler, as the Open Inference Protocol's infer does."""

logger = logging.getLogger("bitheads.serve")


class Guard:
    """An ASGI app around another: see the module.

    Bodies are read here, whole, so that routes never wait for a client; and a client that leaves
    cancels its route.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        admission: Admission,
        ended: Ended,
    ) -> None:
        self._app = app
        self._settings = settings
        self._ended = ended
        self._is_local = is_loopback(settings.host)
        self._allowed_hosts = [name.lower() for name in settings.allowed_hosts]
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._without_root(scope)
        # Of HEAD's answer uvicorn leaves the body out, by the scope that is its own.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        headers = dict(scope["headers"])
        host = (scope.get("client") or ("",))[0]
        visit = self._admission.visit(host, scope["method"], headers)
        inner["visit"] = visit
        status = NOT_ANSWERED
        held = 0

        async def send_noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", visit.id.encode()),
                ]
            await send(message)

        self._ended.begin()
        try:
            self._check_origin(headers)
            self._check_key(scope["method"], scope["path"], headers)
            is_batched = _is_batched(scope)
            if is_batched:
                self._admission.check_room(visit.client)
            body = await self._read(scope, headers, receive, visit.client)
            held = len(body)
            if is_batched:
                visit.announce()
                await asyncio.sleep(0)  # others whose requests are there announce themselves, too
            await self._run(inner, body, receive, send_noted)
        except HttpError as error:
            visit.fail(error)
            if status == NOT_ANSWERED:  # else half an answer is out: the connection is closed
                await error.response(scope)(scope, receive, send_noted)
        except _Left:
            visit.reason = "cancelled"
        except Exception:  # of a route: a defect, which must not end the server
            logger.exception("request %s failed", visit.id)
            if status == NOT_ANSWERED:
                defect = internal(visit.id)
                visit.fail(defect)
                await defect.response(scope)(scope, receive, send_noted)
        finally:
            visit.retract()
            self._admission.let_go(visit.client, held)
            self._ended.note(visit, _route(inner), status)

    def _without_root(self, scope: Scope) -> Scope:
        """Some proxies leave their part of the path in it, others do not."""
        root = self._settings.root_path
        if not root:
            return scope
        path = scope["path"]
        path = path[len(root) :] if path.startswith(f"{root}/") else path
        return {**scope, "path": path, "root_path": root}

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """The routes, until they end, time is up, or the client leaves."""
        sent = False

        async def receive_read() -> MutableMapping[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()  # leaving is noticed below
            raise AssertionError

        running = asyncio.ensure_future(self._app(scope, receive_read, send))
        leaving = asyncio.ensure_future(_until_left(receive))
        try:
            await asyncio.wait(
                {running, leaving},
                timeout=self._settings.request_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if running.done():
                running.result()
                return
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            if leaving.done():
                raise _Left
            raise self._admission.timed_out()
        finally:
            running.cancel()
            leaving.cancel()

    def _check_origin(self, headers: dict[bytes, bytes]) -> None:
        """Before all else: what a page has a browser send is not for a server of this machine."""
        if not self._is_local:
            return
        foreign = foreign_name(headers, self._allowed_hosts, self._settings.cors_origins)
        if foreign is not None:
            raise HttpError(
                403,
                "forbidden",
                f"{foreign:.200}: this server listens for its own machine, and answers no other "
                "site's pages. If it is known by that name, start it with --allowed-hosts.",
                "unauthorized",
            )

    def _check_key(self, method: str, path: str, headers: dict[bytes, bytes]) -> None:
        is_read = method in ("GET", "HEAD")  # a POST to / asks for embeddings
        if path.startswith(OPEN_FOLDERS) or (path in OPEN_PATHS and is_read):
            return
        self._admission.check_key(headers.get(b"authorization", b""), _is_change(method, path))

    async def _read(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, client: str
    ) -> bytes:
        """The whole body, decompressed. Raises HttpError if it cannot be had, _Left."""
        settings = self._settings
        is_head = _is_change(scope["method"], scope["path"])
        limit = settings.max_head_bytes if is_head else settings.max_body_bytes
        option = "--max-head-bytes" if is_head else "--max-body-bytes"
        declared = headers.get(b"content-length", b"").lstrip(b"0") or b"0"
        if declared.isdigit() and int(declared) > limit:
            raise too_large("body", f"{int(declared)} bytes", f"{limit}", option)
        encoding = content_encoding(headers)
        parts: list[bytes] = []
        try:
            await asyncio.wait_for(
                self._collect(parts, limit, option, receive, client), settings.read_timeout_s
            )
            if self._admission.is_draining and _is_batched(scope):
                raise shutting_down()
            if encoding is not None:
                body = await asyncio.to_thread(decoded, b"".join(parts), encoding, limit, option)
                more = len(body) - sum(map(len, parts))
                parts = [body]
                self._admission.hold(client, more, limit)
        except BaseException as error:
            self._admission.let_go(client, sum(map(len, parts)))
            if isinstance(error, asyncio.TimeoutError):
                raise HttpError(
                    408,
                    "timeout",
                    f"The body was not there after {settings.read_timeout_s} s.",
                    "timeout",
                    headers={"connection": "close"},
                ) from None
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _collect(
        self, parts: list[bytes], limit: int, option: str, receive: Receive, client: str
    ) -> None:
        total = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Left
            part = message.get("body", b"")
            more = message.get("more_body", False)
            total += len(part)
            if total > limit:
                raise too_large("body", "more", f"{limit} bytes", option)
            parts.append(part)
            self._admission.hold(client, len(part), limit)


class _Left(Exception):
    """The client closed its connection."""


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_change(method: str, path: str) -> bool:
    """Whether it needs an admin key."""
    return path.startswith("/v1/tasks/") and method in ("PUT", "DELETE")


def _is_batched(scope: Scope) -> bool:
    path = scope["path"]
    is_infer = path.startswith("/v2/") and path.endswith("/infer")
    return scope["method"] == "POST" and (path in BATCHED_PATHS or is_infer)


def _route(scope: Scope) -> str:
    """The route's pattern, see Ended.note."""
    if scope["path"] in BATCHED_PATHS:
        return str(scope["path"])
    return str(getattr(scope.get("route"), "path", "none"))
