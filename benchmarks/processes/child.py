"""Measurements in a process of their own, so that nothing counts that ran before.

The request goes in as JSON on standard input; the answer is the last line on standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import ROOT
from bitheads.engine.errors import BitheadsError

LAST_LINES = 5
"""Lines of what a process wrote last that an error shows."""


class ChildError(BitheadsError):
    """A measuring process failed."""


def run(
    module: str, request: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the module's process answered, and when it was started.

    Args:
        request: JSON; paths must be absolute.
        environment: what differs from this process's.

    Raises ChildError with the end of what it wrote to standard error if it fails.
    """
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode:
        end = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        raise ChildError(f"{module} ended with {done.returncode}:\n{end}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "started_s": started_s}


def answer(measure: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: reads the request, prints what `measure` makes of it."""
    print(json.dumps(measure(json.load(sys.stdin))))
