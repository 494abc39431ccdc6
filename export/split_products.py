"""Products whose result is only taken apart become one product for each part.

Queries, keys and values of one matrix, or the two halves of a gated stage, lie in one tensor of
several times the width, beside the parts that are copied out of it. OpenVINO keeps memory by the
widest tensor that was ever in a place, so for long texts that one tensor is most of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper


def split_products(graph: onnx.GraphProto) -> int:
    """Rewrites a graph in place, and returns how many products were taken apart."""
    return _Splitting(graph).run()


class _Splitting:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {one.name: one for one in graph.initializer}
        self._shapes = {
            value.name: [
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            ]
            for value in graph.value_info
        }
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._new: dict[int, list[onnx.NodeProto]] = {}
        """What takes the place of a node, by its id."""

    def run(self) -> int:
        nodes = list(self._graph.node)
        count = sum(self._split(node) for node in nodes)
        if count:
            nodes = [new for node in nodes for new in self._new.get(id(node), [node])]
            used = {name for node in nodes for name in node.input}
            weights = [one for one in self._constants.values() if one.name in used]
            del self._graph.node[:], self._graph.initializer[:]
            self._graph.node.extend(nodes)
            self._graph.initializer.extend(weights)
        return count

    def _split(self, product: onnx.NodeProto) -> bool:
        if product.op_type != "MatMul" or product.input[1] not in self._constants:
            return False
        bias, last = None, product
        reader = self._only_reader(last)
        if reader is not None and reader.op_type == "Add":
            others = [name for name in reader.input if name != last.output[0]]
            if len(others) != 1 or others[0] not in self._constants:
                return False
            if len(self._constants[others[0]].dims) != 1:
                return False
            bias, last = others[0], reader
            reader = self._only_reader(last)
        if reader is None:
            return False
        columns = self._constants[product.input[1]].dims[-1]
        parts: Sequence[tuple[str, list[int] | None]]
        if reader.op_type == "Split":
            ends = self._ends_of_split(reader, columns)
            replaced, parts = [product, last, reader], [(name, None) for name in reader.output]
        elif reader.op_type == "Reshape":
            found = self._unbound(reader, columns)
            if found is None:
                return False
            parts, others_replaced = found
            ends = np.arange(1, len(parts) + 1) * (columns // len(parts))
            replaced = [product, last, reader, *others_replaced]
        else:
            return False
        if ends is None or len(self._constants[product.input[1]].dims) != 2:
            return False
        self._replace(product, bias, ends, parts, replaced)
        return True

    def _only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        readers = self._readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 else None

    def _ends_of_split(self, split: onnx.NodeProto, columns: int) -> np.ndarray | None:
        """Where the parts of a Split of the last axis end."""
        options = {one.name: helper.get_attribute_value(one) for one in split.attribute}
        rank = len(self._shapes.get(split.input[0], ()))
        if options.get("axis", 0) not in (-1, rank - 1):
            return None
        if len(split.input) > 1 and split.input[1]:
            sizes = self._values(split.input[1])
            return None if sizes is None else np.cumsum(sizes)
        if columns % len(split.output):
            return None
        return np.arange(1, len(split.output) + 1) * (columns // len(split.output))

    def _unbound(
        self, reshape: onnx.NodeProto, columns: int
    ) -> tuple[list[tuple[str, list[int] | None]], list[onnx.NodeProto]] | None:
        """A Reshape of the last axis to [parts, heads, size] or [parts, size], and its Slices.

        Returns the parts' outputs with their last axes, and the nodes that made them.
        """
        shape = self._shapes.get(reshape.output[0])
        slices = self._readers.get(reshape.output[0], [])
        before = len(self._shapes.get(reshape.input[0], ())) - 1
        if not shape or before < 1 or len(slices) != shape[before] or None in shape[before:]:
            return None
        rest = [int(size or 0) for size in shape[before + 1 :]]
        if before != 2 or len(slices) * int(np.prod(rest)) != columns:
            return None
        parts: dict[int, tuple[str, list[int] | None]] = {}
        nodes: list[onnx.NodeProto] = []
        for one in slices:
            squeeze = self._only_reader(one)
            if one.op_type != "Slice" or squeeze is None or squeeze.op_type != "Squeeze":
                return None
            read = [self._values(name) for name in (*one.input[1:4], *squeeze.input[1:])]
            if len(read) != 4 or any(values is None or values.size != 1 for values in read):
                return None
            start, end, axis, squeezed = (int(values[0]) for values in read if values is not None)
            axes = {axis % len(shape), squeezed % len(shape)}
            if axes != {before} or end != start + 1:
                return None
            parts[start] = squeeze.output[0], rest
            nodes += [one, squeeze]
        if sorted(parts) != list(range(len(slices))):
            return None
        return [parts[number] for number in sorted(parts)], nodes

    def _values(self, name: str) -> np.ndarray | None:
        constant = self._constants.get(name)
        return None if constant is None else np.atleast_1d(numpy_helper.to_array(constant))

    def _replace(
        self,
        product: onnx.NodeProto,
        bias: str | None,
        ends: np.ndarray,
        parts: Sequence[tuple[str, list[int] | None]],
        replaced: list[onnx.NodeProto],
    ) -> None:
        made: list[onnx.NodeProto] = []
        begin = 0
        for number, ((output, shape), end) in enumerate(zip(parts, ends.tolist(), strict=True)):
            weights = self._part(product.input[1], number, begin, end)
            steps = [("MatMul", weights)]
            if bias is not None:
                steps.append(("Add", self._part(bias, number, begin, end)))
            if shape is not None:
                steps.append(("Reshape", self._shape([0, 0, *shape])))
            source = product.input[0]
            for i, (kind, constant) in enumerate(steps):
                target = output if i == len(steps) - 1 else f"{output}_{kind}"
                made.append(helper.make_node(kind, [source, constant], [target]))
                made[-1].metadata_props.extend(product.metadata_props)
                source = target
            begin = end
        for node in replaced:
            self._new[id(node)] = []
        self._new[id(product)] = made

    def _part(self, name: str, number: int, begin: int, end: int) -> str:
        """Some columns of a constant."""
        part = f"{name}_part{number}"
        if part not in self._constants:
            values = numpy_helper.to_array(self._constants[name])[..., begin:end]
            self._constants[part] = numpy_helper.from_array(np.ascontiguousarray(values), part)
        return part

    def _shape(self, shape: list[int]) -> str:
        """The constant of a shape, of which the first axes, 0, are the input's."""
        name = "shape_" + "_".join(map(str, shape))
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(shape, np.int64), name)
        return name
