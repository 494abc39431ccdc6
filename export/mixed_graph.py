"""A float32 graph with its products in float16, but for what float16 cannot hold.

What may be float16 is known from magnitudes that were seen. Products are what takes time and
weights are what takes bytes; what lies between two products goes along, as long as it looks at one
tensor. Sums of several tensors (the residual stream, scores with their masks and biases) and sums
over many values (normalizations, softmax) are float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitheads.export.graph_arithmetic import outer_names, subgraphs

LARGEST_WEIGHT = float(np.finfo(np.float16).max)
"""Magnitude up to which a weight may be float16."""

HEADROOM = 4.0
"""Times the magnitude that was seen that a float16 tensor has room for: other texts have others."""

LARGEST = LARGEST_WEIGHT / HEADROOM
"""Magnitude up to which what depends on the texts may be float16."""

SMALLEST = float(np.finfo(np.float16).smallest_normal)
"""Largest magnitude that a float16 tensor has at least, unless it is 0: below, digits are lost."""

PRODUCTS = {"MatMul", "Gemm", "Conv"}
SHAPES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Identity", "Flatten"}
MOVES = SHAPES | {"Slice", "Split", "Concat", "Gather", "GatherND", "GatherElements"}
"""Operators that compute nothing."""
BETWEEN = MOVES | {"Add", "Sub", "Mul", "Div", "Neg", "Relu", "Gelu", "Tanh", "Erf", "Sigmoid"}
"""Operators that are float16 where what they read is."""
SUMS = {"Add", "Sub"}
ANGLES = {"Sin", "Cos"}
"""Operators of positions, which float16 counts up to 2,048; their products are none of texts."""


def lower(model: onnx.ModelProto, magnitudes: Mapping[str, float]) -> list[onnx.NodeProto]:
    """Rewrites a float32 graph in place, and returns the products that stay in float32.

    Outputs become float16 if all of them may be.

    Args:
        model: its weights loaded.
        magnitudes: of every float32 tensor, weights included, the largest; not finite where a
            number was not.
    """
    return _Lowering(model.graph, magnitudes).run()


class _Lowering:
    def __init__(self, graph: onnx.GraphProto, magnitudes: Mapping[str, float]) -> None:
        self._graph = graph
        self._magnitudes = magnitudes
        self._constants = {one.name: one for one in graph.initializer if one.name in magnitudes}
        self._within = {
            name for node in graph.node if subgraphs(node) for name in outer_names(node)
        }
        self._positions = _ancestors(graph, ANGLES)
        self._exact = set(self._constants)
        """Tensors of weights' own numbers: no text has others."""
        for node in graph.node:
            reads = {name for name in node.input if name in magnitudes}
            if node.op_type in MOVES and reads and reads <= self._exact:
                self._exact.update(node.output)
        self._halves: set[str] = set()
        """Tensors that are float16 under their own name."""
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> list[onnx.NodeProto]:
        self._store_in_half()
        kept = []
        for node in list(self._graph.node):
            in_half = self._may_be_half(node)
            if node.op_type in PRODUCTS and not in_half and node.output[0] not in self._positions:
                kept.append(node)
            self._add(node, in_half)
        self._type_outputs()
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        del self._graph.value_info[:]  # of tensors that have other types now
        return kept

    def _fits(self, name: str) -> bool:
        most = LARGEST_WEIGHT if name in self._exact else LARGEST
        magnitude = self._magnitudes[name]
        fits = SMALLEST <= magnitude <= most or magnitude == 0
        return fits and name not in self._within

    def _store_in_half(self) -> None:
        """Tables and matrices, also those that are read in float32."""
        for name, weights in self._constants.items():
            if len(weights.dims) > 1 and self._fits(name) and name not in self._positions:
                values = numpy_helper.to_array(weights).astype(np.float16)
                weights.CopyFrom(numpy_helper.from_array(values, name))
                self._halves.add(name)

    def _may_be_half(self, node: onnx.NodeProto) -> bool:
        reads = [name for name in node.input if name in self._magnitudes]
        makes = [name for name in node.output if name in self._magnitudes]
        if not reads or not makes or node.output[0] in self._positions:
            return False
        if not all(self._fits(name) for name in (*reads, *makes)):
            return False
        if node.op_type in PRODUCTS:
            return True
        if node.op_type not in BETWEEN or (node.op_type in MOVES and reads[0] not in self._halves):
            return False
        activations = [name for name in reads if name not in self._constants]
        if node.op_type in SUMS and len(activations) > 1:
            return False
        return all(name in self._halves for name in activations)

    def _add(self, node: onnx.NodeProto, in_half: bool) -> None:
        wanted = TensorProto.FLOAT16 if in_half else TensorProto.FLOAT
        for i, name in enumerate(node.input):
            if name in self._magnitudes:
                node.input[i] = self._as_type(name, wanted)
        if in_half:
            self._halves.update(name for name in node.output if name in self._magnitudes)
        self._nodes.append(node)

    def _as_type(self, name: str, wanted: int) -> str:
        """The tensor in that type, cast where it is not."""
        if (name in self._halves) == (wanted == TensorProto.FLOAT16):
            return name
        key = name, wanted
        if key not in self._casts:
            self._casts[key] = f"{name}_{'fp16' if wanted == TensorProto.FLOAT16 else 'fp32'}"
            self._nodes.append(helper.make_node("Cast", [name], [self._casts[key]], to=wanted))
        return self._casts[key]

    def _type_outputs(self) -> None:
        """All outputs have one type: what reads them takes one."""
        outputs = list(self._graph.output)
        in_half = all(self._fits(port.name) for port in outputs)
        wanted = TensorProto.FLOAT16 if in_half else TensorProto.FLOAT
        for port in outputs:
            port.type.tensor_type.elem_type = wanted
            if (port.name in self._halves) != in_half:
                own = f"{port.name}_within"
                for node in self._nodes:
                    for names in (node.input, node.output):
                        for i, name in enumerate(names):
                            if name == port.name:
                                names[i] = own
                self._nodes.append(helper.make_node("Cast", [own], [port.name], to=wanted))


def _ancestors(graph: onnx.GraphProto, op_types: set[str]) -> set[str]:
    """What such nodes make, and all that it is computed from."""
    found: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in op_types or not found.isdisjoint(node.output):
            found.update(node.output, outer_names(node))
    return found
