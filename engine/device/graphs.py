"""CUDA graphs: work recorded once and launched again with one call.

pycuda has no call for them, so the driver is asked directly.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from bitheads.engine.errors import BackendError

RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: other threads may allocate meanwhile


@cache
def _driver() -> ctypes.CDLL:
    library = ctypes.CDLL("libcuda.so.1")  # loaded already: pycuda needs it
    pointer, out = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    for name, arguments in {
        "cuStreamBeginCapture_v2": [pointer, ctypes.c_int],
        "cuStreamEndCapture": [pointer, out],
        "cuGraphInstantiateWithFlags": [out, pointer, ctypes.c_uint64],
        "cuGraphLaunch": [pointer, pointer],
        "cuGraphExecDestroy": [pointer],
        "cuGraphDestroy": [pointer],
    }.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return library


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_driver(), name)(*arguments)
    if status:
        raise BackendError(
            f"the GPU's driver refused {name} with error {status}, as it would for work that a "
            "CUDA graph cannot hold. Update the driver and TensorRT."
        )


class Graph:
    """What `record` enqueued on `stream`, to be launched any number of times.

    The addresses it works on are those of the recording. Raises BackendError if the driver cannot
    record it; whatever `record` raises is raised after the recording is over.
    """

    def __init__(self, stream: Any, record: Callable[[], None]) -> None:
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", stream.handle, RELAXED)
        try:
            record()
        except BaseException:
            _driver().cuStreamEndCapture(stream.handle, ctypes.byref(graph))
            if graph:
                _driver().cuGraphDestroy(graph)
            raise
        _call("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, 0)
        finally:
            _driver().cuGraphDestroy(graph)

    def launch(self, stream: Any) -> None:
        _call("cuGraphLaunch", self._executable, stream.handle)

    def close(self) -> None:
        """Forgets the graph; its last launch must be over."""
        if self._executable:
            _driver().cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()
