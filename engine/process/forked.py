"""Processes that were forked from one that had threads: the threads are not there.

Sessions and pools of threads belong to the process that made them. In a child their calls would
wait for ever, and so would their destructors, for threads that only the parent has.
"""

from __future__ import annotations

import ctypes
import os
from weakref import WeakSet

from bitheads.engine.errors import ForkedError

_kept: WeakSet[object] = WeakSet()


def check_process(process: int, what: str) -> None:
    """Raises ForkedError unless this is the process of that id.

    Args:
        what: what it made, such as "this engine".
    """
    if os.getpid() != process:
        raise ForkedError(
            f"{what} was loaded in process {process}, and this is process {os.getpid()}, forked "
            "from it: the threads it needs are not here. Load the engine in each process after "
            "the fork, and none before: in gunicorn's post_fork or without --preload, in Celery's "
            "worker_process_init; or start processes by 'spawn' or 'forkserver' "
            "(multiprocessing.set_start_method)."
        )


def keep_in_children(owner: object) -> None:
    """Keeps `owner`, and what it refers to, from being freed in forked children."""
    _kept.add(owner)


def _keep() -> None:
    for owner in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


os.register_at_fork(after_in_child=_keep)
