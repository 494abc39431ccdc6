"""Loaded encoders behind one protocol. A backend is one file here and one row of a table.

The rows say what must be known before a backend's library is loaded; everything else is in its
file. Nothing outside this folder asks which backend it has.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from bitheads.engine.bundle import QUANTIZED_GRAPHS
from bitheads.engine.errors import BackendError
from bitheads.engine.process.install import how_to_install
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.engine.sessions.compiled_graphs import CompiledGraphs
from bitheads.engine.types import TokenBatch

if TYPE_CHECKING:
    from bitheads.engine.bundle import Manifest
    from bitheads.engine.device.driver import Device
    from bitheads.engine.device.session import DeviceSession


@dataclass(frozen=True)
class Backend:
    """A row of BACKENDS: the file is engine/sessions/NAME.py.

    The file has the class `Session`, which is made as `open_session` makes it, and a function for
    each thing that the row says the backend has.

    Attributes:
        package: the module that it needs.
        extra: of bitheads, which brings that module; "" where bitheads always brings it.
        precisions: what it computes in. "bf16" where `has_bf16()` of its file says so, "int8" of
            bundles that have a graph in it.
        has_lanes: whether several sessions of it on a share of the threads each are faster than one
            on all; its file then has `open_lanes`, see `open_lanes` below.
        rounds_lengths: whether it makes a kernel for every shape, so that there should be few; see
            engine.batching.round_lengths.
        names_processor: whether its file has `processor()`, which says what it sees of the
            processor.
        reads_graphs: whether its file has `table_rows(graph)`, see engine.sessions.embedding_rows.
    """

    package: str
    extra: str
    precisions: tuple[str, ...]
    has_lanes: bool = False
    rounds_lengths: bool = False
    names_processor: bool = False
    reads_graphs: bool = False

    @property
    def fix(self) -> str:
        """What to type to get it."""
        return how_to_install(self.extra)


BACKENDS = {
    "openvino": Backend(
        package="openvino",
        extra="",
        precisions=("fp32", "bf16", "int8_dynamic", "int8"),
        has_lanes=True,
        rounds_lengths=True,
        names_processor=True,
        reads_graphs=True,
    ),
    "onnxruntime": Backend(package="onnxruntime", extra="onnxruntime", precisions=("fp32",)),
}
"""Backends of a CPU, the fastest first."""


@dataclass(frozen=True)
class DeviceBackend:
    """A row of DEVICE_BACKENDS.

    Attributes:
        file: of engine/sessions, without suffix. It has the function `open_device_session`, which
            takes what the one below takes.
        package: the module that it needs, or None where the file finds that out by itself.
        library: that module's name, for people.
        runs_quantized: whether it runs a bundle's quantized graphs for GPUs.
    """

    file: str
    package: str | None = None
    library: str = ""
    runs_quantized: bool = False


DEVICE_BACKENDS = {
    "tensorrt": DeviceBackend("tensorrt", runs_quantized=True),
    "onnxruntime-tensorrt": DeviceBackend("onnxruntime_gpu", "onnxruntime", "ONNX Runtime"),
    "onnxruntime-cuda": DeviceBackend("onnxruntime_gpu", "onnxruntime", "ONNX Runtime"),
}
"""Backends that need a GPU, the fastest first; the second and third want no plan."""

PRECISIONS = ("auto", "fp32", "bf16", "int8_dynamic", "int8")


class EncoderSession(Protocol):
    """A loaded encoder.

    Attributes:
        backend: its key in BACKENDS.
        precision: what it computes in, such as "fp32", "bf16" or "int8_dynamic".
    """

    backend: str
    precision: str

    def run(self, batch: TokenBatch) -> list[NDArray[Any]]:
        """Hidden states of the exported layers, ascending, each [rows, seq, dim].

        float32 or float16. The arrays may be views of the session's own memory: they are valid
        until the next `run`. Not to be called from two threads at once.
        """


@plain_numbers()
def open_session(
    graph: Path,
    output_names: list[str],
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache: CompiledGraphs | None = None,
) -> EncoderSession:
    """Loads a graph into a backend.

    Args:
        graph: the bundle's ONNX file, or an IR of QUANTIZED_GRAPHS; see engine.bundle.graph_file.
        output_names: the hidden states to return, in this order.
        backend: a key of BACKENDS, or "auto": the first that is installed.
        precision: "auto" (the fastest floating-point type the processor is made for), "fp32",
            "bf16", or "int8_dynamic" or "int8", for which the backend "auto" is the first that
            has it.
        threads: processor threads, None for all cores.
        cache: where this very graph is kept, compiled; None to compile it every time.

    Raises BackendError for unknown, missing or failing backends.
    """
    if precision == "fp16":
        raise BackendError(
            "precision: got 'fp16', which is for a GPU: on a CPU nothing is computed in it, "
            "expected 'auto', 'fp32', 'bf16', 'int8_dynamic' or 'int8'. Pass precision='auto', "
            "which is the fastest floating-point type of this processor; a graph in fp16 is no "
            "hindrance."
        )
    if precision not in PRECISIONS:
        raise BackendError(f"precision: got {precision!r}, expected one of {list(PRECISIONS)}.")
    if threads is not None and threads < 1:
        raise BackendError(f"threads: got {threads}, expected at least 1, or None for all cores.")
    if backend == "auto" and precision in QUANTIZED_GRAPHS:
        backend = next(name for name, row in BACKENDS.items() if precision in row.precisions)
    if backend == "auto":
        backend = next((name for name in BACKENDS if is_installed(name)), "")
        if not backend:
            fixes = " or ".join(row.fix for row in BACKENDS.values())
            raise BackendError(f"no encoder backend is installed. Type: {fixes}")
    if backend not in BACKENDS:
        raise BackendError(
            f"backend: got {backend!r}, expected 'auto' or one of {sorted(BACKENDS)}."
        )
    row = BACKENDS[backend]
    if not is_installed(backend):
        raise BackendError(
            f"backend {backend!r} needs the package {row.package!r}. Type: {row.fix}"
        )
    session: EncoderSession = load_file(backend).Session(
        graph, output_names, precision, threads, cache
    )
    return session


@plain_numbers()
def open_lanes(
    graph: Path,
    output_names: list[str],
    backend: str,
    precision: str,
    threads: int | None = None,
    cache: CompiledGraphs | None = None,
) -> list[EncoderSession]:
    """Sessions that run at the same time, each on its share of the threads.

    They keep the cores busier than one session on all threads, whose threads wait for each other
    at every step; but a single batch takes longer.

    Args: see `open_session`; `backend` is a key of BACKENDS.

    Returns an empty list for a backend without them. Raises BackendError if they cannot be loaded.
    """
    if not BACKENDS[backend].has_lanes:
        return []
    lanes: list[EncoderSession] = load_file(backend).open_lanes(
        graph, output_names, precision, threads, cache
    )
    return lanes


@plain_numbers()
def open_device_session(
    backend: str,
    folder: Path,
    manifest: Manifest,
    device: Device,
    stream: Any,
    precision: str = "auto",
) -> DeviceSession:
    """Loads a bundle's encoder onto a GPU.

    Args:
        backend: a key of DEVICE_BACKENDS.
        folder, manifest: of the bundle.
        stream: of pycuda, that all calls of the session go to.
        precision: a key of engine.bundle.GPU_GRAPHS for that graph, else the bundle's own is taken.

    Raises BackendError or PlanError if it cannot be loaded.
    """
    row = DEVICE_BACKENDS[backend]
    if row.package is not None and find_spec(row.package) is None:
        raise BackendError(
            f"backend {backend!r} needs {row.library}. Type: {how_to_install('gpu')}"
        )
    file = import_module(f"{__name__}.{row.file}")
    session: DeviceSession = file.open_device_session(
        backend, folder, manifest, device, stream, precision
    )
    return session


def load_file(backend: str) -> Any:
    """The module of a row of BACKENDS, and with it the backend's library."""
    return import_module(f"{__name__}.{backend}")


def is_installed(backend: str) -> bool:
    """Whether the package a backend needs can be imported."""
    return find_spec(BACKENDS[backend].package) is not None


def supports_bf16(backend: str) -> bool:
    """Whether a backend computes in bfloat16 on this processor."""
    return "bf16" in BACKENDS[backend].precisions and bool(load_file(backend).has_bf16())


def available_ways(quantized: Collection[str] = ()) -> list[tuple[str, str]]:
    """(backend, precision) of every session that this machine can open on its CPU.

    Args:
        quantized: those of QUANTIZED_GRAPHS that are there, too.
    """
    left_out = QUANTIZED_GRAPHS.keys() - {*quantized}
    return [
        (backend, precision)
        for backend in BACKENDS
        if is_installed(backend)
        for precision in BACKENDS[backend].precisions
        if precision not in left_out and (precision != "bf16" or supports_bf16(backend))
    ]
