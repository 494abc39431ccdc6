"""The GPU, through pycuda: its primary context, its memory, and errors that say what to do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bitheads.engine.errors import BackendError, DeviceMemoryError
from bitheads.engine.process.install import how_to_install

NVIDIA_DEVICE = "Type nvidia-smi to see which GPUs the driver knows"


def import_driver() -> Any:
    """The module pycuda.driver. Raises BackendError if pycuda or the NVIDIA driver is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of the error it then raises
            import pycuda.driver as cuda
    except ImportError as error:
        raise BackendError(
            f"pycuda cannot be imported ({error}), and the GPU is reached through it. It needs "
            f"NVIDIA's driver. Type: {how_to_install('gpu')}"
        ) from error
    return cuda


@contextmanager
def device_errors(doing: str) -> Iterator[None]:
    """Turns pycuda's errors into BackendError, and those about memory into DeviceMemoryError."""
    cuda = import_driver()
    try:
        yield
    except cuda.MemoryError as error:
        raise DeviceMemoryError(
            f"the GPU has no memory left while {doing} ({error}). Pass a smaller "
            "max_batch_tokens, or free memory that other programs hold."
        ) from error
    except cuda.Error as error:
        raise BackendError(
            f"the GPU failed while {doing}: {error}. {NVIDIA_DEVICE}; after a launch failure the "
            "program must be started again."
        ) from error


class Device:
    """One GPU and its primary context, which TensorRT and ONNX Runtime use as well.

    Attributes:
        name: as NVIDIA calls it.
        compute_capability: such as "8.6".
    """

    def __init__(self, index: int = 0) -> None:
        """Opens a GPU. Raises BackendError if there is no driver or no such GPU."""
        self.cuda = import_driver()
        try:
            self.cuda.init()
            count = self.cuda.Device.count()
        except self.cuda.Error as error:
            raise BackendError(f"no GPU can be used ({error}). {NVIDIA_DEVICE}.") from error
        if not 0 <= index < count:
            raise BackendError(f"GPU {index}: got {count} GPUs. {NVIDIA_DEVICE}.")
        device = self.cuda.Device(index)
        self.index = index
        self.name: str = device.name()
        self.compute_capability = "{}.{}".format(*device.compute_capability())
        with device_errors("making a context"):
            self._context = device.retain_primary_context()

    @contextmanager
    def current(self, doing: str) -> Iterator[None]:
        """The context, for this thread; errors say that they came while `doing`."""
        with device_errors(doing):
            self._context.push()
            try:
                yield
            finally:
                self.cuda.Context.pop()

    def close(self) -> None:
        """Gives the context back. What was allocated must have been freed."""
        self._context.detach()
