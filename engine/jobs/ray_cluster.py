"""The Ray cluster that jobs run on: the one that RAY_ADDRESS names, else one of this machine.

One that is started here reports nothing. Ray's process for that, which also has its dashboard,
would ask a cloud's metadata service where it runs, even if usage statistics are off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bitheads.engine.errors import BackendError
from bitheads.engine.process.install import how_to_install

USAGE_STATISTICS = "RAY_USAGE_STATS_ENABLED"
"""The environment variable that Ray looks at; what the user says there is left as it is."""


def connect() -> Any:
    """The modules ray and ray.data, the cluster running.

    Raises BackendError without Ray.
    """
    os.environ.setdefault(USAGE_STATISTICS, "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError(
            f"--runner ray needs Ray, which cannot be loaded ({error}). Type: "
            f"{how_to_install('ray')}"
        ) from error
    if not ray.is_initialized():
        with _without_dashboard():
            ray.init(log_to_driver=False)  # RAY_ADDRESS says where, if anywhere
    return ray


@contextmanager
def _without_dashboard() -> Iterator[None]:
    """No option of Ray leaves that process out; `include_dashboard=False` starts it, too."""
    try:
        from ray._private import node

        started: Any = node.Node
        start = started.start_api_server
    except (
        ImportError,
        AttributeError,
    ):  # another version of Ray: tests/ray then sees what it asks
        yield
        return
    started.start_api_server = lambda *arguments, **options: None
    try:
        yield
    finally:
        started.start_api_server = start
