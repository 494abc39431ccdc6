"""Loaded encoders behind one protocol. Each backend is one file; adding one is adding a row."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from bitheads.engine.errors import BackendError
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.engine.sessions.compiled_graphs import CompiledGraphs
from bitheads.engine.types import TokenBatch

BACKENDS = {
    "openvino": ("openvino", "pip install bitheads"),
    "onnxruntime": ("onnxruntime", "pip install 'bitheads[onnxruntime]'"),
}
"""Backend -> (the distribution it needs, what to type to get it), fastest on a CPU first."""

PRECISIONS = ("auto", "fp32", "bf16", "int8")


class EncoderSession(Protocol):
    """A loaded encoder.

    Attributes:
        backend: its key in BACKENDS.
        precision: what it computes in, such as "fp32", "bf16" or "int8".
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
        graph: the bundle's ONNX file, or for "int8" its IR; see engine.bundle.graph_file.
        output_names: the hidden states to return, in this order.
        backend: a key of BACKENDS, or "auto": the first that is installed.
        precision: "auto" (the fastest floating-point type the processor is made for), "fp32",
            "bf16", or "int8", which only openvino has.
        threads: processor threads, None for all cores.
        cache: where this very graph is kept, compiled; None to compile it every time.

    Raises BackendError for unknown, missing or failing backends.
    """
    if precision == "fp16":
        raise BackendError(
            "precision: got 'fp16', which is for a GPU: on a CPU nothing is computed in it, "
            "expected 'auto', 'fp32', 'bf16' or 'int8'. Pass precision='auto', which is the "
            "fastest floating-point type of this processor; a graph in fp16 is no hindrance."
        )
    if precision not in PRECISIONS:
        raise BackendError(f"precision: got {precision!r}, expected one of {list(PRECISIONS)}.")
    if threads is not None and threads < 1:
        raise BackendError(f"threads: got {threads}, expected at least 1, or None for all cores.")
    if backend == "auto" and precision == "int8":
        backend = "openvino"
    if backend == "auto":
        backend = next((name for name in BACKENDS if is_installed(name)), "")
        if not backend:
            fixes = " or ".join(fix for _, fix in BACKENDS.values())
            raise BackendError(f"no encoder backend is installed. Type: {fixes}")
    if backend not in BACKENDS:
        raise BackendError(
            f"backend: got {backend!r}, expected 'auto' or one of {sorted(BACKENDS)}."
        )
    if not is_installed(backend):
        module, fix = BACKENDS[backend]
        raise BackendError(f"backend {backend!r} needs the package {module!r}. Type: {fix}")
    session: EncoderSession = import_module(f"bitheads.engine.sessions.{backend}").Session(
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
    module = import_module(f"bitheads.engine.sessions.{backend}")
    lanes: list[EncoderSession] = []
    if hasattr(module, "open_lanes"):
        lanes = module.open_lanes(graph, output_names, precision, threads, cache)
    return lanes


def is_installed(backend: str) -> bool:
    """Whether the package a backend needs can be imported."""
    return find_spec(BACKENDS[backend][0]) is not None


def supports_bf16(backend: str) -> bool:
    """Whether a backend computes in bfloat16 on this processor."""
    if backend != "openvino":
        return False
    from bitheads.engine.sessions import openvino

    return openvino.has_bf16()
