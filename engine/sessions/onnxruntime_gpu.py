"""The encoder on ONNX Runtime's CUDA or TensorRT provider: what runs where no plan fits."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bitheads.engine.bundle import GRAPH, Manifest
from bitheads.engine.device.driver import Device
from bitheads.engine.errors import BackendError, DeviceMemoryError
from bitheads.engine.process.cores import count_physical_cores
from bitheads.engine.process.forked import keep_in_children
from bitheads.engine.process.install import how_to_install
from bitheads.engine.process.quiet_import import import_quietly

onnxruntime = import_quietly("onnxruntime")

PROVIDERS = {
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
}
DTYPES = {"tensor(float16)": "float16", "tensor(float)": "float32"}
LOG_ERRORS_ONLY = 3

OUT_OF_MEMORY = ("allocate memory", "out of memory", "resource allocation failed")
"""What its arena, CUDA and cuBLAS say then."""


def open_device_session(
    backend: str,
    folder: Path,
    manifest: Manifest,
    device: Device,
    stream: Any,
    precision: str = "auto",
) -> Session:
    """See engine.sessions.open_device_session."""
    dim, longest = manifest.spec.dim, manifest.encoder.max_length
    return Session(backend, folder / GRAPH, manifest.output_names, dim, longest, device, stream)


def load_libraries(provider: str) -> str:
    """Loads CUDA and cuDNN from the packages that pip has, or else from where the linker looks.

    TensorRT, for its provider, is where the linker does not look: its own package loads it.

    Returns what could not be loaded; ONNX Runtime would print it to standard output.
    """
    said = io.StringIO()
    with redirect_stdout(said):
        onnxruntime.preload_dlls(directory="")
        if provider == PROVIDERS["onnxruntime-tensorrt"]:
            try:
                import_module("tensorrt")
            except (ImportError, OSError) as error:
                print(f"tensorrt: {error}")
    return " ".join(said.getvalue().split())


def provider_options(device: Device, stream: Any) -> dict[str, Any]:
    """Calls go to the encoder's own stream, so that what follows on it need not wait."""
    return {"device_id": device.index, "user_compute_stream": str(stream.handle)}


class Session:
    """See engine.device.session.DeviceSession."""

    capturable = True

    memory = "cuda"
    """Where the bound addresses are."""

    def __init__(
        self,
        backend: str,
        graph: Path,
        output_names: Sequence[str],
        dim: int,
        max_seq: int,
        device: Device,
        stream: Any,
    ) -> None:
        """Raises BackendError if the provider is not there or refuses the graph."""
        provider = PROVIDERS[backend]
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(
                f"backend {backend!r} needs ONNX Runtime's {provider}, got "
                f"{onnxruntime.get_available_providers()}. Type: pip uninstall onnxruntime; "
                f"{how_to_install('gpu')}"
            )
        self.backend = backend
        self._device = device
        self._dim = dim
        self._max_seq = max_seq
        missing = load_libraries(provider)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        options.intra_op_num_threads = count_physical_cores()  # see engine.sessions.onnxruntime
        try:
            self._session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=[(provider, provider_options(device, stream))],
            )
        except Exception as error:  # its exception classes share no base but Exception
            raise _failure(f"{provider} cannot load {graph}", error) from error
        if self._session.get_providers()[0] != provider:
            raise BackendError(
                f"{provider} could not be started: ONNX Runtime fell back to "
                f"{self._session.get_providers()}. Its libraries (CUDA, cuDNN, TensorRT) are "
                f"missing or of another version than it was built for. {missing}"
            )
        self.inputs = tuple(port.name for port in self._session.get_inputs())
        self._outputs = list(output_names)
        types = {port.name: port.type for port in self._session.get_outputs()}
        self.dtype = DTYPES[types[self._outputs[0]]]
        self.precision = {"float16": "fp16", "float32": "fp32"}[self.dtype]
        keep_in_children(self)
        self._run_options = onnxruntime.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def max_tokens(self) -> int:
        return 1 << 20  # the graph's axes are dynamic: memory is what bounds a call

    def max_seq(self) -> int:
        return self._max_seq

    def max_rows(self, seq: int) -> int:
        return self.max_tokens() // seq if seq <= self._max_seq else 0

    def bind(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self._addresses = list(inputs), list(outputs)

    def enqueue(self, rows: int, seq: int, keep: bool = False) -> None:
        binding = self._session.io_binding()
        where = (self.memory, self._device.index)
        inputs, outputs = self._addresses
        for name, address in zip(self.inputs, inputs, strict=True):
            binding.bind_input(name, *where, np.int64, (rows, seq), address)
        for name, address in zip(self._outputs, outputs, strict=True):
            binding.bind_output(name, *where, np.dtype(self.dtype), (rows, seq, self._dim), address)
        self._run(binding)

    def _run(self, binding: Any) -> None:
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:
            raise _failure(f"{self.backend} failed", error) from error

    def forget(self, rows: int, seq: int) -> None:
        pass  # nothing is kept

    def close(self) -> None:
        del self._session


def _failure(what: str, error: Exception) -> BackendError:
    said = str(error)
    if any(words in said for words in OUT_OF_MEMORY):
        return DeviceMemoryError(f"{what}: the GPU has no memory left: {said}")
    return BackendError(f"{what}: {said}")
