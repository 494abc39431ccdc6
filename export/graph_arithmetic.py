"""A graph computed as its types say, op by op: float16 is rounded to float16 after each of them.

Backends on a CPU compute float16 graphs in float32 or bfloat16 and so hide what overflows where
float16 is computed. This is ONNX's own reference in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

PRODUCTS_AND_SUMS = {"MatMul", "Gemm", "Conv", "Einsum", "LayerNormalization", "Softmax"}
CURVES = {"Gelu", "Erf", "Tanh", "Sigmoid", "Exp", "Pow", "Sqrt", "Reciprocal"}
FLOAT32_WITHIN = PRODUCTS_AND_SUMS | CURVES | {"ReduceMean", "ReduceSum"}
"""Operators that GPUs compute in float32 within, of float16 inputs too; the result is rounded."""


class Erf(OpRun):
    """ONNX's own goes through Python for every number."""

    op_domain = ""

    def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any]]:
        found = torch.erf(torch.from_numpy(np.ascontiguousarray(x, np.float32)))
        return (found.numpy().astype(x.dtype),)


class Gelu(OpRun):
    """ONNX's own is made of Erf."""

    op_domain = ""

    def _run(self, x: NDArray[Any], approximate: str = "none") -> tuple[NDArray[Any]]:
        values = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        found = torch.nn.functional.gelu(values, approximate=approximate or "none")
        return (found.numpy().astype(x.dtype),)


class GatherElements(OpRun):
    """ONNX's own wants axes of the same size, which the operator does not."""

    op_domain = ""

    def _run(
        self, data: NDArray[Any], indices: NDArray[Any], axis: int | None = None
    ) -> tuple[NDArray[Any]]:
        axis = (axis or 0) % data.ndim
        part = tuple(slice(None if i == axis else n) for i, n in enumerate(indices.shape))
        return (np.take_along_axis(data[part], indices, axis),)


class GraphArithmetic:
    """A graph to be computed by its own types."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """model: without functions of its own, its weights loaded."""
        graph = model.graph
        self._constants = {one.name: one for one in graph.initializer}
        self._nodes = list(graph.node)
        opsets = {one.domain: one.version for one in model.opset_import}
        self._evaluators = [_evaluator(node, opsets) for node in graph.node]
        self._last_use = {
            name: i for i, node in enumerate(graph.node) for name in outer_names(node)
        }

    def run(
        self, inputs: Mapping[str, NDArray[Any]]
    ) -> Iterator[tuple[onnx.NodeProto, dict[str, NDArray[Any]]]]:
        """Each node with what it makes, by name, in the order of the graph."""
        values: dict[str, Any] = dict(inputs)
        for i, (node, evaluator) in enumerate(zip(self._nodes, self._evaluators, strict=True)):
            feeds = {
                # Weights are unpacked for the node that reads them: all at once are as large again.
                name: values[name] if name in values else self.constant(name)
                for name in outer_names(node)
            }
            with np.errstate(all="ignore"):  # what overflows is looked at by whoever asks
                found = _run(node, evaluator, feeds)
            yield node, found
            values.update(found)
            for name in (*feeds, *found):
                if self._last_use.get(name, -1) <= i:
                    values.pop(name, None)

    def constant(self, name: str) -> NDArray[Any]:
        """A weight or another constant of the graph."""
        return numpy_helper.to_array(self._constants[name])


def outer_names(node: onnx.NodeProto) -> list[str]:
    """Tensors that a node reads, within its subgraphs too."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        inner = {one.name for one in (*graph.initializer, *graph.input)}
        inner |= {name for part in graph.node for name in part.output}
        names += [name for part in graph.node for name in outer_names(part) if name not in inner]
        names += [port.name for port in graph.output if port.name not in inner]
    return list(dict.fromkeys(names))


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Of a loop or a condition."""
    return [one.g for one in node.attribute if one.type == onnx.AttributeProto.GRAPH]


def _evaluator(node: onnx.NodeProto, opsets: Mapping[str, int]) -> ReferenceEvaluator:
    unknown = onnx.TypeProto()
    graph = helper.make_graph(
        [node],
        node.name,
        [helper.make_value_info(name, unknown) for name in outer_names(node)],
        [helper.make_value_info(name, unknown) for name in node.output if name],
    )
    return ReferenceEvaluator(graph, opsets=dict(opsets), new_ops=[Erf, Gelu, GatherElements])


def _run(
    node: onnx.NodeProto, evaluator: ReferenceEvaluator, feeds: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    names = [name for name in node.output if name]
    is_half = node.op_type in FLOAT32_WITHIN and any(
        value.dtype == np.float16 for value in feeds.values()
    )
    if is_half:
        feeds = {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in feeds.items()
        }
    values = (np.asarray(value) for value in evaluator.run(names, feeds))
    return {
        name: value.astype(np.float16) if is_half and value.dtype == np.float32 else value
        for name, value in zip(names, values, strict=True)
    }
