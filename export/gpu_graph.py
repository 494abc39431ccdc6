"""The exported graph with 8-bit products for GPUs: FP8 (E4M3) or int8, by Q and DQ in ONNX.

TensorRT reads from QuantizeLinear and DequantizeLinear which products it is to compute in 8 bits
(its documentation, "Working with Quantized Types"). Weights are stored in 8 bits, with a step per
output channel; activations get one step per tensor, from the largest number seen on real texts. For
int8 SmoothQuant (Xiao et al., 2022) first moves the outliers of activations into the weights; E4M3
has an exponent of its own and gains nothing by it. Attention's own two products stay as they are:
with Q and DQ around them TensorRT-RTX no longer makes one kernel of them. `benchmarks/LOG.md` has
what was tried.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitheads.engine.bundle import GPU_GRAPHS
from bitheads.engine.sessions import open_session
from bitheads.engine.types import TokenBatch
from bitheads.export.errors import ExportError
from bitheads.export.int8 import SMOOTHING
from bitheads.export.onnx_graph import MAX_SINGLE_FILE_BYTES, save_graph

SIMULATOR = "openvino"
"""Backend that computes such a graph on a CPU, rounding where the graph says so."""
SIMULATED = "simulated"
"""In the parity report, in place of a backend: the graph as a CPU computes it."""

SMALLEST_STEP: dict[int, float] = {TensorProto.FLOAT16: 2.0**-14, TensorProto.FLOAT: 2.0**-126}
"""Smallest normal number of a floating-point type: below, a step would lose digits."""
SMALLEST_SEEN = 1e-5
"""Magnitude that a channel is taken to have at least when outliers are moved."""


@dataclass(frozen=True)
class Kind:
    """A type of 8 bits: its number in ONNX, and its largest magnitude that is used."""

    onnx_type: int
    largest: float
    smoothing: float | None

    def round(self, values: NDArray[np.float32]) -> bytes:
        """The nearest values of this type, ties to even, as bytes; beyond the ends, the ends."""
        bounded = torch.from_numpy(values).clamp(-self.largest, self.largest)
        if self.onnx_type == TensorProto.INT8:
            return bounded.round().to(torch.int8).numpy().tobytes()
        return bounded.to(torch.float8_e4m3fn).view(torch.uint8).numpy().tobytes()


KINDS = {
    "fp8": Kind(TensorProto.FLOAT8E4M3FN, 448.0, None),
    "int8": Kind(TensorProto.INT8, 127.0, SMOOTHING),
}


def quantize_for_gpus(
    graph: Path, graph_precision: str, precision: str, batches: Sequence[TokenBatch], folder: Path
) -> tuple[list[Path], dict[str, Any]]:
    """Writes the graph of GPU_GRAPHS beside the bundle's own.

    Inputs and outputs have the names, types and axes of `graph`'s.

    Args:
        graph: the bundle's ONNX file.
        graph_precision: the floating-point type of its products that are quantized, "fp16" or
            "fp32". What a graph in fp16 keeps in float32 stays so: it leaves float16's range.
        precision: a key of KINDS.
        batches: real texts, as the engine would batch them.

    Returns the files it takes, and the parity report's part "gpu_graph".

    Raises ExportError for a graph without any product that can be quantized.
    """
    model = onnx.load(graph)
    wanted = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT}[graph_precision]
    weights = {
        one.name: one
        for one in model.graph.initializer
        if one.data_type == wanted and len(one.dims) == 2
    }
    products = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and node.input[0] not in weights
    ]
    seen = _largest_seen(model, {node.input[0] for node in products}, wanted, batches)
    chosen = [node for node in products if node.input[0] in seen]
    if not chosen:
        raise ExportError(
            f"--plan-precision {precision}: {graph.name} has no product of {graph_precision} with "
            "weights that reads [rows, tokens, features]. Leave the option out."
        )
    _Quantizing(model.graph, KINDS[precision], wanted, weights, seen).run(chosen)
    files = save_graph(model, folder / GPU_GRAPHS[precision])
    return files, {"precision": precision, "products": len(chosen)}


def _largest_seen(
    model: onnx.ModelProto, names: set[str], float_type: int, batches: Sequence[TokenBatch]
) -> dict[str, NDArray[np.float32]]:
    """The largest magnitude of each feature, float32 [features], of tensors [rows, seq, features].

    Tensors of other shapes, such as blocks of a window, are left out. Padding counts: a text may
    have the token in it, whose numbers are like no other's.
    """
    wanted = sorted(names)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    already = {port.name for port in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, float_type, None)
        for name in wanted
        if name not in already
    )
    found: dict[str, NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "watched.onnx"
        is_large = watched.ByteSize() > MAX_SINGLE_FILE_BYTES
        onnx.save(watched, path, save_as_external_data=is_large, location="watched.onnx.data")
        session = open_session(path, wanted, SIMULATOR, "fp32")
        for batch in batches:
            for name, values in zip(wanted, session.run(batch), strict=True):
                if values.ndim != 3 or values.shape[:2] != batch.input_ids.shape:
                    continue
                largest = np.abs(values).max(axis=(0, 1), initial=0)
                found[name] = np.maximum(found.get(name, 0), largest, dtype=np.float32)
        del session
    return found


class _Quantizing:
    def __init__(
        self,
        graph: onnx.GraphProto,
        kind: Kind,
        float_type: int,
        weights: dict[str, onnx.TensorProto],
        seen: dict[str, NDArray[np.float32]],
    ) -> None:
        self._graph = graph
        self._kind = kind
        self._dtype = helper.tensor_dtype_to_np_dtype(float_type)
        self._smallest = SMALLEST_STEP[float_type]
        self._weights = weights
        self._seen = seen
        self._nodes: list[onnx.NodeProto] = []
        self._activations: dict[str, str] = {}
        """Tensor -> what products read in its place."""
        self._done: set[str] = set()
        self._moved: dict[str, NDArray[np.float32]] = {}
        """Tensor -> what its features are divided by, and the weights multiplied: [features]."""

    def run(self, products: Sequence[onnx.NodeProto]) -> None:
        chosen = {id(node) for node in products}
        if self._kind.smoothing is not None:
            self._moved = self._outliers(products, self._kind.smoothing)
        for node in list(self._graph.node):
            if id(node) in chosen:
                source, weights = node.input
                node.input[0] = self._quantized(source)
                node.input[1] = self._stored(weights, source)
            self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        kept = [one for one in self._graph.initializer if one.name in read]
        del self._graph.initializer[:], self._graph.value_info[:]
        self._graph.initializer.extend(kept)

    def _outliers(
        self, products: Sequence[onnx.NodeProto], share: float
    ) -> dict[str, NDArray[np.float32]]:
        """Equation 4 of SmoothQuant, over all products that read a tensor, with a mean of 1."""
        of_weights: dict[str, NDArray[np.float32]] = {}
        for node in products:
            source = node.input[0]
            largest = np.abs(self._values(node.input[1])).max(axis=1)
            of_weights[source] = np.maximum(of_weights.get(source, 0), largest, dtype=np.float32)
        moved = {}
        for source, largest in of_weights.items():
            logs = share * np.log(np.maximum(self._seen[source], SMALLEST_SEEN))
            logs -= (1 - share) * np.log(np.maximum(largest, SMALLEST_SEEN))
            # Rounded as the graph has it, so that both sides are of the same numbers.
            inverse = np.exp(logs.mean() - logs).astype(self._dtype)
            moved[source] = 1 / inverse.astype(np.float32)
        return moved

    def _quantized(self, source: str) -> str:
        if source in self._activations:
            return self._activations[source]
        largest, read = self._seen[source], source
        if source in self._moved:
            inverse = (1 / self._moved[source]).astype(self._dtype)
            read = f"{source}_smooth"
            self._add("Mul", [source, self._constant(f"{source}_inverse", inverse)], read)
            largest = largest / self._moved[source]
        step = self._constant(f"{source}_step", self._step(largest.max()))
        zero = self._zero(f"{source}_zero", ())
        self._add("QuantizeLinear", [read, step, zero], f"{source}_quantized")
        back = f"{source}_8bit"
        self._add("DequantizeLinear", [f"{source}_quantized", step, zero], back)
        self._activations[source] = back
        return back

    def _stored(self, name: str, source: str) -> str:
        """Weights in 8 bits, [inputs, outputs], and what makes floating-point numbers of them."""
        values = self._values(name)
        if source in self._moved:
            values = values * self._moved[source][:, None]
        steps = self._step(np.abs(values).max(axis=0))
        stored = f"{source}_{name}_stored"
        if stored not in self._done:
            self._done.add(stored)
            in_steps = np.divide(values, steps.astype(np.float32), dtype=np.float32)
            data = self._kind.round(in_steps)
            self._graph.initializer.append(
                helper.make_tensor(stored, self._kind.onnx_type, values.shape, data, raw=True)
            )
            scales = self._constant(f"{stored}_steps", steps)
            zeros = self._zero(f"{stored}_zeros", steps.shape)
            self._add("DequantizeLinear", [stored, scales, zeros], f"{stored}_8bit", axis=1)
        return f"{stored}_8bit"

    def _values(self, name: str) -> NDArray[np.float32]:
        values: NDArray[np.float32] = numpy_helper.to_array(self._weights[name]).astype(np.float32)
        return values

    def _step(self, largest: Any) -> NDArray[Any]:
        steps = np.maximum(np.asarray(largest) / self._kind.largest, self._smallest)
        return steps.astype(self._dtype)

    def _zero(self, name: str, shape: tuple[int, ...]) -> str:
        zeros = bytes(int(np.prod(shape)))  # of either type
        self._graph.initializer.append(
            helper.make_tensor(name, self._kind.onnx_type, shape, zeros, raw=True)
        )
        return name

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(
            helper.make_node(op_type, inputs, [output], name=f"node_{output}", **attributes)
        )
