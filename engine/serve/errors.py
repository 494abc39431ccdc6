"""Errors as HTTP answers: a status, a word for programs, a sentence for people."""

from __future__ import annotations

import math

from starlette.responses import Response
from starlette.types import Scope

from bitheads.engine.errors import (
    BitheadsError,
    HeadError,
    InputError,
    KeepError,
    SpecMismatchError,
    UnknownTaskError,
)
from bitheads.engine.serve.messages import to_json

MAX_MESSAGE = 1000
"""Characters of an error's sentence, at most."""

TEI_PATHS = (
    "/",
    "/embed",
    "/embed_all",
    "/similarity",
    "/predict",
    "/tokenize",
    "/decode",
    "/info",
)
"""Paths of text-embeddings-inference, whose clients read errors of one form, whoever refuses."""

TEI_TYPES = {
    "empty": "empty",
    "queue_full": "overloaded",
    "timeout": "overloaded",
    "shutting_down": "unhealthy",
    "not_offered": "backend",
}
"""What it calls some of our errors; the others are of the type "validation" or "backend"."""


class HttpError(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        code: a word for programs.
        reason: of bitheads_rejections, None if it counts as none.
        retry_after_s: for a Retry-After header, None for no such header.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        reason: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        # What a client sent is echoed no further than it is needed to find it.
        self.message = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "..."
        self.reason = reason
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))

    def body(self, path: str, method: str = "POST") -> bytes:
        """The answer's body for a request of this path, in the form that its protocol has."""
        if path.startswith("/v2"):
            return to_json({"error": self.message})
        is_page = path == "/" and method in ("GET", "HEAD")
        if path in TEI_PATHS and not is_page:
            return to_json({"error": self.message, "error_type": self._tei_type()})
        return to_json({"error": {"code": self.code, "message": self.message}})

    def _tei_type(self) -> str:
        """The word of text-embeddings-inference that is nearest."""
        if self.code in TEI_TYPES:
            return TEI_TYPES[self.code]
        return "backend" if self.status >= 500 else "validation"

    def response(self, scope: Scope) -> Response:
        """The answer to the request of this scope, see `body`."""
        body = self.body(scope["path"], scope.get("method", ""))
        return Response(body, self.status, self.headers, "application/json")


def too_large(what: str, got: str, limit: str, option: str) -> HttpError:
    """413, for what is larger than a limit."""
    return HttpError(
        413,
        "too_large",
        f"{what}: got {got}, expected at most {limit}. Send less, or start the server with a "
        f"larger {option}.",
        "too_large",
    )


def empty(what: str) -> HttpError:
    """400, for a list without items where there must be some."""
    return HttpError(400, "empty", f"{what}: got an empty list, expected one item or more.")


def queue_full(retry_after_s: float) -> HttpError:
    """429, for what the queue has no room for."""
    return HttpError(
        429,
        "queue_full",
        "The queue is full. Try again after the time in Retry-After.",
        "queue_full",
        retry_after_s,
    )


def shutting_down() -> HttpError:
    """503, from the time on when no request is taken."""
    return HttpError(
        503, "shutting_down", "The server is shutting down. Ask another.", "shutting_down", 1.0
    )


def timed_out(after_s: float, retry_after_s: float) -> HttpError:
    """503, for what was not answered in time."""
    return HttpError(
        503,
        "timeout",
        f"No answer within {after_s} s. Send less at once, or start the server with a larger "
        "--request-timeout-s.",
        "timeout",
        retry_after_s,
    )


def internal(request_id: str) -> HttpError:
    """500: a defect of ours."""
    return HttpError(
        500, "internal", f"An error of the server's, in its log as request {request_id}."
    )


def of_engine(error: BitheadsError) -> HttpError:
    """The engine's own errors: the client's fault, but for those of the encoder."""
    kinds: list[tuple[type[BitheadsError], int, str]] = [
        (UnknownTaskError, 404, "unknown_task"),
        (SpecMismatchError, 409, "spec_mismatch"),
        (HeadError, 422, "bad_head"),
        (InputError, 422, "bad_request"),
        (KeepError, 507, "cannot_be_kept"),
    ]
    for kind, status, code in kinds:
        if isinstance(error, kind):
            return HttpError(status, code, str(error))
    return HttpError(500, "engine_failed", str(error))
