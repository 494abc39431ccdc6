"""The CUDA kernels, loaded: device code that was compiled once, and launches of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine import _kernels
from engine.device.driver import Device
from engine.errors import BackendError

DEVICE_CODE = Path(_kernels.__file__).with_name("bitheads.fatbin")
"""Beside the native module, since both are made of the same sources and must stay together."""

DEFAULT_SHARED_BYTES = 48 << 10
"""Dynamic shared memory that a kernel may use without being told."""


class DeviceCode:
    """The loaded fat binary; the driver picks the machine code of its GPU."""

    def __init__(self, device: Device, path: Path = DEVICE_CODE) -> None:
        """Raises BackendError if there is no device code, or none that this GPU can run."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BackendError(
                f"device code {path}: cannot be read ({error}), expected the compiled CUDA "
                "kernels. Make them with `python -m export.device_code`; that needs "
                "pip install 'bitheads[device]', but no GPU."
            ) from error
        self._cuda = device.cuda
        with device.current(f"loading {path} for compute capability {device.compute_capability}"):
            self._module = device.cuda.module_from_buffer(content)
        self._functions: dict[str, Any] = {}

    def launch(self, launch: _kernels.Launch, stream: Any) -> None:
        """Enqueues a planned launch, in a current context."""
        name, grid, block, shared_bytes, argument = launch
        if 0 in grid:
            return
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._module.get_function(name)
        if shared_bytes > DEFAULT_SHARED_BYTES:
            function.set_attribute(
                self._cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes
            )
        function(np.void(argument), grid=grid, block=block, shared=shared_bytes, stream=stream)
