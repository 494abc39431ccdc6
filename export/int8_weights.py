"""The exported graph with weights in int8, as OpenVINO IR: activations are rounded as it runs.

Weights get a step and a zero point per output and group of inputs. Nothing is calibrated, so it
does not matter how like the texts of the build other texts are. OpenVINO keeps such weights as they
are, and multiplies them with activations that it rounds to int8 as they come, per token and group
of features (engine.sessions.openvino). `benchmarks/LOG.md` has what was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.bundle import INT8_DYNAMIC_GRAPH, INT8_DYNAMIC_WEIGHTS, INT8_GROUP
from bitheads.export.errors import ExportError

LEVELS = 255
"""Steps from the least to the largest weight of a group: all that a byte has."""
LEAST_STEP = 1e-7
"""Of a group of zeros; float16 has smaller numbers, but not by much."""


def require_openvino() -> None:
    """Raises ExportError, with what to type, unless OpenVINO is installed."""
    module = "openvino"
    if find_spec(module) is None:
        raise ExportError(
            f"--precision int8_dynamic needs the package {module!r}. Type: pip install {module}"
        )


def quantize_weights(graph: Path, folder: Path) -> list[Path]:
    """Writes encoder_int8_dynamic.xml and .bin into `folder` and returns their paths.

    Inputs and outputs have the names, types and axes of `graph`'s. Products of two activations and
    tables of embeddings stay as they are.

    Args:
        graph: the bundle's ONNX file.

    Raises ExportError if OpenVINO is not installed, or no product of the graph has weights.
    """
    require_openvino()
    from bitheads.engine.sessions.openvino_core import openvino, the_core

    model = the_core().read_model(graph)
    products = list(_products(model))
    if not products:
        raise ExportError(
            f"--precision int8_dynamic: no product of {graph.name} has constant weights, so there "
            "is nothing to round. Use --precision fp16."
        )
    for product, weights in products:
        _replace(openvino.opset13, product, weights)
    model.validate_nodes_and_infer_types()
    path = folder / INT8_DYNAMIC_GRAPH
    # What is not in 8 bits keeps the type the graph gave it.
    openvino.save_model(model, path, compress_to_fp16=False)
    return [path, folder / INT8_DYNAMIC_WEIGHTS]


def round_weights(
    weights: NDArray[np.float32], step_type: type[np.floating[Any]]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[Any]]:
    """Bytes, zero points and steps: a weight is about (byte - zero point) * step.

    Args:
        weights: float32 [outputs, inputs].
        step_type: np.float16 or np.float32, the type that products of the graph have.

    Returns bytes uint8 [outputs, groups, inputs / groups], and zero points, uint8, and steps, both
    [outputs, groups, 1]. Inputs that are no multiple of INT8_GROUP are one group.
    """
    outputs, inputs = weights.shape
    groups = inputs // INT8_GROUP if inputs % INT8_GROUP == 0 else 1
    grouped = weights.reshape(outputs, groups, -1)
    least = np.minimum(grouped.min(axis=2, keepdims=True), 0)
    largest = np.maximum(grouped.max(axis=2, keepdims=True), 0)
    exact = np.maximum((largest - least) / LEVELS, LEAST_STEP)
    steps = exact.astype(step_type)
    # Up, as no weight must lie beyond the last byte.
    steps = np.where(steps < exact, np.nextafter(steps, step_type(np.inf)), steps)
    wide = steps.astype(np.float32)
    zero_points = np.rint(-least / wide)
    rounded = np.clip(np.rint(grouped / wide) + zero_points, 0, LEVELS)
    return rounded.astype(np.uint8), zero_points.astype(np.uint8), steps


def _products(model: Any) -> Iterator[tuple[Any, NDArray[np.float32]]]:
    """Each product with weights, and those, float32 [outputs, inputs]."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
            continue
        weights = _constant(node.input_value(1).get_node())
        if weights is not None and weights.ndim == 2:
            is_transposed = node.get_attributes()["transpose_b"]
            yield node, np.ascontiguousarray(weights if is_transposed else weights.T)


def _constant(node: Any) -> NDArray[np.float32] | None:
    """The numbers of a constant, maybe cast; None if it is none."""
    if node.get_type_name() == "Convert":
        return _constant(node.input_value(0).get_node())
    if node.get_type_name() != "Constant" or not node.get_element_type().is_real():
        return None
    return np.asarray(node.get_data(), dtype=np.float32)


def _replace(opset: Any, product: Any, weights: NDArray[np.float32]) -> None:
    """Puts a product of rounded weights where `product` is."""
    name = product.get_friendly_name()
    step_type = product.input_value(1).get_element_type().to_dtype().type
    rounded, zero_points, steps = round_weights(weights, step_type)
    has_groups = rounded.shape[1] > 1
    if not has_groups:  # two axes are what OpenVINO knows rows by
        rounded, zero_points, steps = (array[:, 0] for array in (rounded, zero_points, steps))

    def named(node: Any, suffix: str) -> Any:
        node.set_friendly_name(f"{name}/{suffix}")  # its own would count the process's nodes
        return node

    def cast(integers: NDArray[np.uint8], what: str) -> Any:
        constant = named(opset.constant(np.ascontiguousarray(integers)), what)
        return named(opset.convert(constant, step_type), f"{what}_cast")

    shifted = named(
        opset.subtract(cast(rounded, "rounded"), cast(zero_points, "zero_points")), "shifted"
    )
    constant_steps = named(opset.constant(np.ascontiguousarray(steps)), "steps")
    operand = named(opset.multiply(shifted, constant_steps), "weights")
    if has_groups:
        shape = named(opset.constant(np.array(weights.shape, np.int64)), "shape")
        operand = named(opset.reshape(operand, shape, False), "rows")
    new = opset.matmul(product.input_value(0), operand, False, True)
    new.set_friendly_name(name)
    names = product.output(0).get_names()
    for target in list(product.output(0).get_target_inputs()):
        target.replace_source_output(new.output(0))
    new.output(0).set_names(names)
