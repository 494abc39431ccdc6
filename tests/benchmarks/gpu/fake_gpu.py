"""Just enough of pycuda to run the benchmarks' own copies and timing on the host: memory is memory.

What the GPU's code itself does is tested elsewhere; launches are only noted here.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Memory:
    live = 0

    def __init__(self, num_bytes: int) -> None:
        self._bytes = np.zeros(num_bytes, np.uint8)
        Memory.live += 1

    def __int__(self) -> int:
        return int(self._bytes.ctypes.data)

    def free(self) -> None:
        assert self._bytes.size
        self._bytes = np.empty(0, np.uint8)
        Memory.live -= 1


class Event:
    def record(self, stream: object) -> None:
        self.at_s = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def time_since(self, other: Event) -> float:
        return 1e3 * (self.at_s - other.at_s)


def _copy(to: int, source: int, num_bytes: int) -> None:
    ctypes.memmove(to, source, num_bytes)


def _to_device(memory: Memory, array: NDArray[Any], stream: object = None) -> None:
    assert array.flags.c_contiguous
    assert array.nbytes <= memory._bytes.size
    _copy(int(memory), array.ctypes.data, array.nbytes)


def _to_host(array: NDArray[Any], memory: Memory, stream: object = None) -> None:
    assert array.flags.c_contiguous
    assert array.nbytes <= memory._bytes.size
    _copy(array.ctypes.data, int(memory), array.nbytes)


class FakeGpu:
    """Device, code and stream at once, as benchmarks.gpu.context.Gpu takes them."""

    def __init__(self, free_bytes: int = 1 << 34) -> None:
        self.launches: list[str] = []
        self.name, self.index, self.compute_capability = "a GPU that is none", 0, "9.0"
        self.handle = 0
        self.cuda = SimpleNamespace(
            Event=Event,
            mem_alloc=Memory,
            mem_get_info=lambda: (free_bytes, free_bytes),
            memcpy_htod=_to_device,
            memcpy_htod_async=_to_device,
            memcpy_dtoh_async=_to_host,
            memcpy_dtod=_copy,
            memcpy_dtod_async=lambda to, source, num_bytes, stream: _copy(to, source, num_bytes),
            pagelocked_empty=np.empty,
        )

    @contextmanager
    def current(self, doing: str) -> Iterator[None]:
        yield

    def launch(self, launch: Any, stream: object) -> None:
        self.launches.append(launch[0])

    def synchronize(self) -> None:
        pass
