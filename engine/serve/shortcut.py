"""The routes that are asked most, past FastAPI, whose routing takes a quarter of a small request.

FastAPI has the same routes, for the description of the API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class Shortcut:
    """An ASGI app that calls the handlers of some POST routes itself, and hands on all else.

    What a handler raises is raised.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute], paths: Collection[str]) -> None:
        """routes: that have a route for each of `paths`, each with a handler of a request alone."""
        self._app = app
        self._handlers: dict[str, Handler] = {
            route.path: route.endpoint
            for route in routes
            if isinstance(route, APIRoute)
            and route.path in paths
            and "POST" in (route.methods or ())
        }
        assert self._handlers.keys() == set(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["path"]) if scope.get("method") == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
        else:
            response = await handler(Request(scope, receive))
            await response(scope, receive, send)
