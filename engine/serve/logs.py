"""One line per request: JSON for machines, or text for people."""

from __future__ import annotations

import json
import logging
import re
import time
from contextlib import suppress
from typing import Any

from bitheads.engine.process.json_lines import print_json
from bitheads.engine.serve.visit import Visit


class RequestLog:
    """Writes to standard output, where containers' logs are read from."""

    def __init__(self, form: str, process: int | None = None) -> None:
        """Args:
        form: json, text or none.
        process: the number of this process, where several write the same log.
        """
        self._form = form
        self._process = process

    def write(
        self, route: str, status: int, took_s: float, visit: Visit, trace: str | None
    ) -> None:
        if self._form == "none":
            return
        fields = {
            "process": self._process,
            "request_id": visit.id,
            "trace_id": trace,
            "client": visit.host,
            "method": visit.method,
            "route": route,
            "status": status,
            "ms": round(1000 * took_s, 3),
            "texts": visit.texts,
            "tokens": visit.tokens,
            "error": visit.error,
        }
        _print(self._form, "INFO", "request", {k: v for k, v in fields.items() if v is not None})


class Handler(logging.Handler):
    """Everything else that is logged, in the same form."""

    def __init__(self, form: str, process: int | None = None) -> None:
        """See RequestLog."""
        super().__init__()
        self._form = form
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        extra: dict[str, Any] = {"logger": record.name}
        if self._process is not None:
            extra["process"] = self._process
        if record.exc_info:
            extra["traceback"] = logging.Formatter().formatException(record.exc_info)
        _print(self._form, record.levelname, record.getMessage(), extra)


def set_up(form: str, process: int | None = None) -> RequestLog:
    """Sends the log of the whole process this way. See RequestLog."""
    root = logging.getLogger()
    root.handlers = [Handler("text" if form == "none" else form, process)]
    root.setLevel(logging.INFO)
    return RequestLog(form, process)


def _print(form: str, level: str, message: str, fields: dict[str, Any]) -> None:
    now = time.time()
    shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    with suppress(OSError):  # whoever read the log is gone: no reason to stop serving
        if form == "json":
            print_json({"time": shown, "level": level, "message": message, **fields})
        else:
            shown_fields = " ".join(
                f"{name}={_one_word(name, value)}" for name, value in fields.items()
            )
            print(f"{shown} {level} {_one_line(message)} {shown_fields}", flush=True)


def _one_word(name: str, value: Any) -> str:
    """What can be taken for no other field, and no other line; but for our own tracebacks."""
    text = str(value)
    if name == "traceback" or re.fullmatch(r"[^\s\"=]+", text):
        return text
    return json.dumps(text)


def _one_line(message: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
