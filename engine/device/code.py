"""The CUDA kernels, loaded: device code that was compiled once, and launches of it.

    bitheads.fatbin   machine code for some architectures, and PTX for those to come
    bitheads.json     its hash, and the version of the launches it was compiled for

`bitheads device-code` writes both into this package's folder, where a wheel takes them
from: device code and the module that plans its launches are made of the same sources.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from bitheads.engine import _kernels
from bitheads.engine.device.driver import Device
from bitheads.engine.errors import BackendError
from bitheads.engine.files.whole_file import write_whole

DEVICE_CODE = Path(__file__).with_name("bitheads.fatbin")
FIX = (
    "Make it with `bitheads device-code` in a clone of the repository; that needs "
    "pip install -e '.[device]' -c constraints-device.txt, but no GPU."
)

DEFAULT_SHARED_BYTES = 48 << 10
"""Bytes of dynamic shared memory that a kernel may use without asking for them."""


def read_device_code(path: Path) -> bytes:
    """The fat binary. Raises BackendError if it is missing, damaged or of another version."""
    try:
        content = path.read_bytes()
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        version, sha256 = about["abi_version"], about["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(
            f"device code {path}: cannot be read ({error!r}), expected the compiled CUDA kernels. "
            f"{FIX}"
        ) from error
    if version != _kernels.abi_version():
        raise BackendError(
            f"device code {path}: got ABI version {version}, expected {_kernels.abi_version()}. "
            f"{FIX}"
        )
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        raise BackendError(
            f"device code {path}: was changed: got sha256 {got[:12]}..., expected "
            f"{str(sha256)[:12]}.... {FIX}"
        )
    return content


def write_device_code(path: Path, content: bytes) -> None:
    """Writes a fat binary and what `read_device_code` compares. Raises OSError."""
    about = {
        "abi_version": _kernels.abi_version(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    write_whole(path.with_suffix(".json"), (json.dumps(about) + "\n").encode())


class DeviceCode:
    """The loaded fat binary; the driver picks the machine code of its GPU."""

    def __init__(self, device: Device, path: Path | None = None) -> None:
        """Raises BackendError if there is no device code, or none that this GPU can run."""
        path = path or DEVICE_CODE
        content = read_device_code(path)
        self._cuda = device.cuda
        with device.current(
            f"loading {path}, which is for compute capability 8.0 and newer, on "
            f"{device.compute_capability}"
        ):
            self._module: Any = device.cuda.module_from_buffer(content)
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

    def close(self) -> None:
        """Unloads the code, in a current context; no launch may be pending."""
        self._functions.clear()
        self._module = None
