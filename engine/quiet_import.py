"""Libraries that report to their makers, imported without that.

What reports also gets in the way: OpenVINO's part raises where the user has no home folder, and
ONNX Runtime's has a thread of its own, for which a forked child waits for ever when it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.plain_numbers import plain_numbers

OPENVINO_TELEMETRY = "openvino_telemetry"
"""The module that OpenVINO and NNCF report through, where it is installed."""

NO_ONNXRUNTIME_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""The environment variable that ONNX Runtime looks at when it is imported."""

NO_HOME = "/nonexistent"


def import_quietly(name: str) -> Any:
    """The module of that name: openvino, nncf, openvino_tokenizers, or onnxruntime.

    A module that the program has imported already stays as it is, and afterwards the program may
    import those that report itself.

    Raises ImportError.
    """
    if name in sys.modules:
        return import_module(name)  # which waits for another thread that is at it
    environment = {NO_ONNXRUNTIME_TELEMETRY: "1"} if name == "onnxruntime" else {}
    try:
        Path.home()
    except RuntimeError:  # NNCF wants to know where it is
        environment["HOME"] = NO_HOME
    with _no_openvino_telemetry(), _environment(environment), plain_numbers():
        return import_module(name)


@contextmanager
def _no_openvino_telemetry() -> Iterator[None]:
    missing = object()
    before: Any = sys.modules.get(OPENVINO_TELEMETRY, missing)
    sys.modules[OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # its import now fails
    try:
        yield
    finally:
        if before is missing:
            sys.modules.pop(OPENVINO_TELEMETRY, None)
        else:
            sys.modules[OPENVINO_TELEMETRY] = before


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
