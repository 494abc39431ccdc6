"""The plugin of formula_sessions.cpp, its controls, and the same formula for Python's encoders."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from software_driver import SoftwareCuda


def hidden_state(
    ids: NDArray[np.int64], types: NDArray[np.int64], layer: int, dim: int
) -> NDArray[np.float32]:
    """float32 [rows, seq, dim], of numbers that float16 has, too."""
    position = np.arange(ids.shape[1], dtype=np.uint32)
    h = ids.astype(np.uint32) * np.uint32(2654435761)
    h ^= position * np.uint32(40503) + types.astype(np.uint32) * np.uint32(7919)
    h = h * np.uint32(2246822519) + np.array([layer], np.uint32) * np.uint32(374761393)
    h ^= h >> np.uint32(15)
    features = np.arange(dim, dtype=np.uint32) * np.uint32(668265263)
    h = (h * np.uint32(3266489917))[:, :, None] + features
    h ^= h >> np.uint32(13)
    h *= np.uint32(2246822519)
    return ((h >> np.uint32(24)).astype(np.float32) - np.float32(127.5)) / np.float32(64)


class FormulaPlugin:
    """The loaded plugin's controls: see formula_sessions.cpp."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self.folder = library.parent

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self._library.formula_set(name.encode(), ctypes.c_int64(value))

    def reset(self) -> None:
        self._library.formula_reset()


class FormulaSession:
    """See engine.device.session.DeviceSession: the formula on the software device."""

    backend, precision = "formula", "fp16"
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    dtype = "float16"
    capturable = True

    def __init__(
        self, driver: SoftwareCuda, stream: Any, layers: Sequence[int], dim: int, longest: int
    ) -> None:
        self._driver, self._stream = driver, stream
        self._layers, self._dim, self._longest = layers, dim, longest

    def max_tokens(self) -> int:
        return 1 << 20

    def max_seq(self) -> int:
        return self._longest

    def max_rows(self, seq: int) -> int:
        return self.max_tokens() // seq if seq <= self._longest else 0

    def bind(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self._addresses = list(inputs), list(outputs)

    def enqueue(self, rows: int, seq: int, keep: bool = False) -> None:
        self._driver.enqueue(self._stream.handle, lambda: self._compute(rows, seq))

    def _compute(self, rows: int, seq: int) -> None:
        inputs, outputs = self._addresses
        ids, _, types = (_array(at, (rows, seq), np.int64) for at in inputs)
        for layer, address in zip(self._layers, outputs, strict=True):
            out = _array(address, (rows, seq, self._dim), np.float16)
            out[:] = hidden_state(ids, types, layer, self._dim)

    def forget(self, rows: int, seq: int) -> None:
        pass

    def close(self) -> None:
        pass


def _array(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)
