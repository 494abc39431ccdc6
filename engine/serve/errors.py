"""Errors as HTTP answers: a status, a word for programs, a sentence for people."""

from __future__ import annotations

import math

from starlette.responses import Response

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

    def body(self, path: str) -> bytes:
        """The answer's body for a request of this path: /v2 has errors of one string."""
        content = {"code": self.code, "message": self.message}
        return to_json({"error": self.message if path.startswith("/v2") else content})

    def response(self, path: str) -> Response:
        """See `body`."""
        return Response(self.body(path), self.status, self.headers, "application/json")


def too_large(what: str, got: str, limit: str, option: str) -> HttpError:
    """413, for what is larger than a limit."""
    return HttpError(
        413,
        "too_large",
        f"{what}: got {got}, expected at most {limit}. Send less, or start the server with a "
        f"larger {option}.",
        "too_large",
    )


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
