"""The server as an ASGI application, for uvicorn or any other host of such."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from bitheads import __version__
from bitheads.engine.engine import Engine
from bitheads.engine.serve import api, openai, tei
from bitheads.engine.serve.admission import Admission
from bitheads.engine.serve.docs_page import add_docs_page
from bitheads.engine.serve.encodings import GzipAnswers
from bitheads.engine.serve.ended import Ended
from bitheads.engine.serve.errors import HttpError, internal
from bitheads.engine.serve.guard import BATCHED_PATHS, Guard
from bitheads.engine.serve.kserve import routes as kserve
from bitheads.engine.serve.kserve.model import Model
from bitheads.engine.serve.logs import RequestLog
from bitheads.engine.serve.metrics import Metrics
from bitheads.engine.serve.scheduler import Scheduler
from bitheads.engine.serve.settings import Settings
from bitheads.engine.serve.shortcut import Shortcut
from bitheads.engine.serve.uploads import HeadFolder
from bitheads.engine.serve.whole import AllParts, OwnPart, Whole
from bitheads.engine.serve.work import Work

if TYPE_CHECKING:  # extras of their own
    from bitheads.engine.serve.grpc_server import GrpcServer
    from bitheads.engine.serve.traces import Traces

PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

OWN_HEADERS = ("inference-header-content-length", "x-request-id")
"""Headers of ours that both sides may send."""


class Server:
    """An engine over HTTP. It owns the engine from now on.

    Attributes:
        asgi: the application.
        grpc: the server of its other port, if there is one.
        part: what other processes of the same server ask of this one.
        whole: what concerns all of them.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        log: RequestLog | None = None,
        whole: Whole | None = None,
    ) -> None:
        """Raises HeadError or SpecMismatchError for unsound heads in `settings.heads`.

        Args:
            whole: the server that this is a process of, if there are others: they share the ports.
        """
        self.engine = engine
        kept = HeadFolder(settings.heads)
        kept.load_into(engine)
        self._closing, self._is_closed = threading.Lock(), False
        self._metrics = Metrics()
        self._scheduler = Scheduler(
            engine,
            settings.max_queue_tokens,
            settings.max_batch_tokens,
            settings.max_wait_ms / 1000,
            settings.request_timeout_s / 2,
            self._metrics.batch,
            settings.cache_bytes,
        )
        self._admission = Admission(settings, self._scheduler)
        self._work = Work(engine, self._scheduler, settings, self._metrics)
        self.part = OwnPart(engine, self._scheduler, self._work, self._metrics)
        self.whole = whole or AllParts([self.part], kept)
        model = settings.bundle.resolve().name
        self._model = Model(self._work, self.whole, model, self._is_live, self._is_ready)
        routers = {
            "bitheads": api.routes(self._work, self.whole),
            "OpenAI": openai.routes(self._work, model),
            "text-embeddings-inference": tei.routes(self._work, model),
        }
        batched = [route for router in routers.values() for route in router.routes]
        app: ASGIApp = Shortcut(self._app(routers), batched, BATCHED_PATHS)
        if settings.gzip_min_bytes:
            app = GzipAnswers(app, settings.gzip_min_bytes)
        self._traces: Traces | None = None
        if settings.traces == "otlp":
            from bitheads.engine.serve.traces import Traces

            self._traces = Traces()
        ended = Ended(self._metrics, log or RequestLog(settings.log), self._traces)
        self._guard = Guard(app, settings, self._admission, ended)
        self.grpc: GrpcServer | None = None
        if settings.grpc_port is not None:
            from bitheads.engine.serve.grpc_server import GrpcServer
            from bitheads.engine.serve.kserve.grpc_service import InferenceService

            self.grpc = GrpcServer(
                InferenceService(self._work, self._model),
                settings,
                self._admission,
                ended,
                shares_port=whole is not None,
            )
        self._asgi: ASGIApp = self._guard
        if settings.cors_origins:  # outside: what a browser asks first has no key
            self._asgi = CORSMiddleware(
                self._guard,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "POST", "PUT", "DELETE"),
                allow_headers=("authorization", "content-encoding", "content-type", *OWN_HEADERS),
                expose_headers=("retry-after", "server-timing", *OWN_HEADERS),
                allow_private_network=True,
            )

    @property
    def asgi(self) -> ASGIApp:
        return self._asgi

    def drain(self) -> None:
        """From now on it is not ready, and takes no texts; what is there is answered."""
        self._admission.is_draining = True

    def close(self) -> None:
        """Answers all that waits, then frees everything. Once is enough, more does nothing."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self.drain()
        self._scheduler.close()
        self._work.close()
        self.engine.close()
        if self._traces is not None:
            self._traces.close()

    @property
    def failure(self) -> BaseException | None:
        """Why it cannot answer any more, None if it can: whoever runs it is to end it then."""
        return self._scheduler.failure

    def _is_live(self) -> bool:
        return self.failure is None

    def _is_ready(self) -> bool:
        return not self._admission.is_draining and self._is_live()

    def _app(self, routers: Mapping[str, APIRouter]) -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield
            self.close()

        app = FastAPI(
            title="bitheads",
            version=__version__,
            summary="One encoder pass per text, every task's answer.",
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        add_docs_page(app)
        for tag, router in routers.items():
            app.include_router(router, tags=[tag])
        app.include_router(
            kserve.routes(self._work, self._model),
            tags=["Open Inference Protocol"],
        )
        page = files("bitheads.engine.serve").joinpath("page.html").read_text(encoding="utf-8")

        @app.get("/", include_in_schema=False)
        async def show_page() -> Response:
            return HTMLResponse(page, headers={"content-security-policy": PAGE_POLICY})

        @app.get(
            "/health/live",
            tags=["health"],
            response_model=None,
            response_class=Response,
            responses={503: {"description": "No: it cannot answer any more, and ends"}},
        )
        async def live() -> Response:
            """200 as long as the process can answer at all."""
            return Response(status_code=200 if self._is_live() else 503)

        @app.get(
            "/health/ready",
            tags=["health"],
            response_model=None,
            response_class=Response,
            responses={503: {"description": "No: the server shuts down"}},
        )
        async def ready() -> Response:
            """200 if requests are taken, 503 while the server shuts down."""
            return Response(status_code=200 if self._is_ready() else 503)

        @app.get("/metrics", tags=["health"], response_model=None, response_class=PlainTextResponse)
        async def metrics() -> Response:
            """Counts and times, for Prometheus."""
            body = await asyncio.to_thread(self.whole.show_metrics)
            return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

        app.add_exception_handler(HttpError, _http_error)
        app.add_exception_handler(HTTPException, _of_starlette)
        app.add_exception_handler(RequestValidationError, _bad_path)
        app.add_exception_handler(Exception, _defect)
        return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    request.scope["visit"].fail(error)
    return error.response(request.scope)


async def _bad_path(request: Request, error: Exception) -> Response:
    return await _http_error(
        request, HttpError(422, "bad_request", f"{request.url.path}: {error}. See /docs.")
    )


async def _defect(request: Request, error: Exception) -> Response:
    """Starlette raises it again afterwards, and the guard logs it."""
    return await _http_error(request, internal(request.scope["visit"].id))


async def _of_starlette(request: Request, error: Exception) -> Response:
    """404 and 405, in the same form as all errors."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "bad_request")
    message = f"{request.method} {request.url.path}: {error.detail}. See /docs."
    made = HttpError(error.status_code, code, message, headers=dict(error.headers or {}))
    return await _http_error(request, made)
