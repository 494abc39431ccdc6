"""OpenVINO, imported and set up once per process: what imports it does so from here."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from bitheads.engine.process.forked import check_process, keep_in_children
from bitheads.engine.process.quiet_import import import_quietly

__all__ = ["openvino", "the_core"]

openvino = import_quietly("openvino")


def _make_core() -> Any:
    core = openvino.Core()
    # OpenVINO would bind its threads to processors, beginning at the first this process may run on:
    # every one-thread process of a machine to the same one. Sessions that take all processors do so
    # (engine.sessions.openvino), no others (benchmarks/LOG.md).
    core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
    keep_in_children(core)
    return core


def _prepare_conversions() -> None:
    """Its tables of NumPy's types are made here, not by the first calls of a session.

    The first use of a table fills it. Of two threads that come at once, one may hold the table's
    lock and wait for Python's, while the other holds that and waits for the table: for ever.
    """
    assert openvino.Type.i64.to_dtype() == np.int64
    assert openvino.Tensor(np.zeros(1, np.int64), shared_memory=True).data.size == 1


_PROCESS = os.getpid()
_CORE = _make_core()
_prepare_conversions()


def the_core() -> Any:
    """The only openvino.Core of this process, which never goes.

    A core with the CPU's plugin gives its thread a stack for signals, and takes it back when it
    goes, though a later core may put it in place again when that one goes. Then Ctrl-C is a
    segfault.

    Raises ForkedError in a child that was forked after OpenVINO was imported: what was compiled
    before left it with pools of threads that are not there, and new sessions would be given those.
    """
    check_process(_PROCESS, "OpenVINO")
    return _CORE
