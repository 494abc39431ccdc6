"""The encoder on OpenVINO: the default on CPUs, in bfloat16 where the processor has it.

Also in int8, if it is asked for and the graph is an IR that `export.int8` wrote. What is not int8
there is computed in bfloat16 where the processor has it: 4% less time than in float32 was
measured. And in int8_dynamic, of an IR of `export.int8_weights`: OpenVINO rounds the activations of
a product as they come, per token and group of features, and computes the rest in float32. On a
processor without integer dot products it computes all of it in float32.
"""

from __future__ import annotations

import logging
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.bundle import INT8_GROUP, QUANTIZED_GRAPHS
from bitheads.engine.errors import BackendError, ForkedError
from bitheads.engine.process.cores import allowed_processors, choose_threads
from bitheads.engine.process.forked import keep_in_children
from bitheads.engine.sessions.compiled_graphs import CompiledGraphs
from bitheads.engine.sessions.openvino_core import openvino, the_core
from bitheads.engine.types import TokenBatch

OPENVINO_TYPES = {"fp32": "f32", "bf16": "bf16"}

KEPT_SHAPES = 96
"""Shapes that OpenVINO keeps kernels for. With its own 5,000, each new shape of a batch of
all-MiniLM-L6-v2 takes 0.7 MB more. Sorted texts go through all 80 lengths there are
(`round_lengths`) again and again: if fewer were kept, the others would take 7% more time."""


logger = logging.getLogger("bitheads")


def has_bf16() -> bool:
    """Whether this processor has bfloat16 arithmetic that OpenVINO uses."""
    return "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def processor() -> str:
    """The processor and what it can do, as OpenVINO says it."""
    core = the_core()
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} ({' '.join(sorted(can))})"


def table_rows(graph: Path) -> dict[str, int | None]:
    """Rows of the tables that a graph looks its inputs up in, by input; None where unknown.

    Nothing is said of a graph that cannot be read.
    """
    try:
        model = the_core().read_model(graph)
    except (RuntimeError, ForkedError):  # the session that is opened next says what is wrong
        return {}
    return {port.get_any_name(): _rows_looked_up(port) for port in model.inputs}


def _rows_looked_up(ids: Any) -> int | None:
    """Rows of the smallest table that is looked up with an openvino.Output.

    `host/src/session.cpp` finds them in the same way.
    """
    found = []
    for target in ids.get_target_inputs():
        node = target.get_node()
        kind = node.get_type_name()
        if kind == "Convert":
            found.append(_rows_looked_up(node.output(0)))
        elif kind == "Gather" and target.get_index() == 1:
            rows = node.get_input_partial_shape(0)[0]
            found.append(rows.get_length() if rows.is_static else None)
    return min((rows for rows in found if rows is not None), default=None)


class Session:
    """See engine.sessions.EncoderSession."""

    backend = "openvino"

    def __init__(
        self,
        graph: Path,
        output_names: list[str],
        precision: str,
        threads: int | None,
        cache: CompiledGraphs | None = None,
        performance: str = "LATENCY",
    ) -> None:
        """performance: OpenVINO's hint; "THROUGHPUT" is for lanes."""
        core = the_core()
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": performance,
            "CPU_RUNTIME_CACHE_CAPACITY": KEPT_SHAPES,
        }
        threads = threads or choose_threads()
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        # A process with threads for all its processors may bind them: others that do so have one
        # on each, too. Unbound, one text takes up to 40% longer in some processes.
        options["ENABLE_CPU_PINNING"] = threads is None or threads >= len(allowed_processors())
        if precision == "int8":
            options["INFERENCE_PRECISION_HINT"] = "bf16" if has_bf16() else "f32"
        elif precision == "int8_dynamic":
            # The bundle's agreement is of this; bfloat16 beside it has not been tried.
            options["INFERENCE_PRECISION_HINT"] = "f32"
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = INT8_GROUP
        elif precision != "auto":
            options["INFERENCE_PRECISION_HINT"] = OPENVINO_TYPES[precision]
            if precision == "bf16" and not has_bf16():
                raise BackendError(
                    "precision: got 'bf16', but this processor has no bfloat16 arithmetic. "
                    "Pass precision='auto' or 'fp32'."
                )
        try:
            compiled, memory = _compile(core, graph, options, cache)
        except RuntimeError as error:
            raise BackendError(
                f"openvino cannot load {graph}: {error}. Export the bundle again, or try "
                "backend='onnxruntime'."
            ) from error
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        computed = {"f32": "fp32"}.get(hint, hint)
        self.precision = precision if precision in QUANTIZED_GRAPHS else computed
        self._inputs = [port.get_any_name() for port in compiled.inputs]
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = output_names
        self._memory = memory  # that all above points into: last, as what is first goes first
        keep_in_children(self)

    def run(self, batch: TokenBatch) -> list[NDArray[Any]]:
        self._request.infer(
            {name: getattr(batch, name) for name in self._inputs}, share_inputs=True
        )
        return [self._request.get_tensor(name).data for name in self._outputs]

    def lanes(self) -> list[Session]:
        """The sessions on this graph that OpenVINO wants at the same time, this one the first."""
        others = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") - 1
        return [self, *(self._another() for _ in range(others))]

    def _another(self) -> Session:
        other = copy(self)
        other._request = self._compiled.create_infer_request()
        keep_in_children(other)
        return other


def open_lanes(
    graph: Path,
    output_names: list[str],
    precision: str,
    threads: int | None,
    cache: CompiledGraphs | None = None,
) -> list[Session]:
    """See engine.sessions.open_lanes. The weights are there once for all of them."""
    return Session(graph, output_names, precision, threads, cache, "THROUGHPUT").lanes()


def _compile(
    core: Any, graph: Path, options: dict[str, Any], cache: CompiledGraphs | None
) -> tuple[Any, NDArray[np.uint8] | None]:
    """The compiled graph, from the cache if it is there, and the memory that it lies in.

    Reading it takes half the time. OpenVINO has a cache of its own, but it names files by the
    graph's path and time, and believes whatever it finds under a name.
    """
    if cache is None:
        return core.compile_model(graph, "CPU", options), None
    made = {
        "by": f"openvino {openvino.__version__}",
        "for": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "can": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "options": options,
    }
    kept = cache.read(made)
    if kept is not None:
        try:
            tensor = openvino.Tensor(kept, shared_memory=True)
            return core.import_model(tensor, "CPU", options), kept
        except RuntimeError as error:
            logger.info("what was compiled before does not load any more: %s", error)
    compiled = core.compile_model(graph, "CPU", options)
    cache.write(made, compiled.export_model)
    return compiled, None
