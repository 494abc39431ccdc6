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

from bitheads.engine.process.plain_numbers import plain_numbers

OPENVINO_TELEMETRY = "openvino_telemetry"
"""The module that OpenVINO and NNCF report through, where it is installed."""

QUIET = {
    "onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"},
    # Else every request to the hub names the coding agent that it comes from, and asks for a list
    # of them first.
    "huggingface_hub.constants": {"HF_HUB_DISABLE_TELEMETRY": "1"},
}
"""Environment variables that a module looks at when it is imported, and the values to find there,
unless the user has set them."""

NO_HOME = "/nonexistent"


def import_quietly(name: str) -> Any:
    """The module of that name: openvino, nncf, openvino_tokenizers, onnxruntime, or one of QUIET.

    A module that the program has imported already stays as it is, and afterwards the program may
    import those that report itself.

    Raises ImportError.
    """
    if name in sys.modules:
        return import_module(name)  # which waits for another thread that is at it
    wanted = QUIET.get(name, {})
    environment = {key: value for key, value in wanted.items() if key not in os.environ}
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
