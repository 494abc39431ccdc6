"""Graphs as TensorRT reads them: their inputs and outputs, and what would lose precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bitheads.engine.bundle import Manifest
from bitheads.export.errors import ExportError
from bitheads.export.plans import tensorrt_module

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LARGEST_FLOAT16_CONSTANT = 6e4
"""Magnitude that a float16 constant may have. Above it lie the lowest float16 that masks often are,
and what float32 was clamped to."""
_SHOWN = 5
_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32"}


def check_tensors(network: Any, manifest: Manifest) -> tuple[dict[str, str], dict[str, str]]:
    """The network's inputs and outputs, name -> dtype.

    Raises ExportError unless they are what the bundle promises: int64 [rows, seq] inputs, and
    the manifest's outputs [rows, seq, dim] in one type that its precision may have.
    """
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    names = [tensor.name for tensor in inputs]
    if not set(INPUTS[:2]) <= set(names) <= set(INPUTS):
        raise ExportError(
            f"graph: got the inputs {names}, expected {list(INPUTS)}, of which the last may be "
            "absent. Export the bundle again."
        )
    if (got := [tensor.name for tensor in outputs]) != manifest.output_names:
        raise ExportError(
            f"graph: got the outputs {got}, expected {manifest.output_names}, as bundle.json says. "
            "Export the bundle again."
        )
    # Of a graph in fp16 they are float32 where float16 cannot hold them.
    may_be = {"fp16": ("float16", "float32"), "fp32": ("float32",)}[manifest.encoder.precision]
    dtype = _dtype(outputs[0]) if _dtype(outputs[0]) in may_be else may_be[0]
    found = []
    for tensors, expected_dtype, expected_shape in (
        (inputs, "int64", (-1, -1)),
        (outputs, dtype, (-1, -1, manifest.spec.dim)),
    ):
        for tensor in tensors:
            got_dtype = _dtype(tensor)
            if (got_dtype, tuple(tensor.shape)) != (expected_dtype, expected_shape):
                raise ExportError(
                    f"graph: {tensor.name} is {got_dtype} {list(tensor.shape)}, expected "
                    f"{expected_dtype} {list(expected_shape)}, -1 for any size. Export the bundle "
                    "again."
                )
        found.append({tensor.name: expected_dtype for tensor in tensors})
    return found[0], found[1]


def check_numerics(trt: Any, network: Any) -> None:
    """Has normalizations compute in float32, and refuses what would lose precision or overflow.

    Known to go wrong in float16: softmax, normalizations and other sums over many values (their
    squares pass 65504 in RoBERTa), and masks of the lowest float16, which a negative score turns
    to -inf.

    Raises ExportError for a softmax or reduction of float16, and for float16 constants beyond
    +-6e4.
    """
    found = []
    for layer in _layers(network):
        if layer.type == trt.LayerType.NORMALIZATION:
            tensorrt_module.normalize_in_fp32(trt, layer)
        elif layer.type in (trt.LayerType.SOFTMAX, trt.LayerType.REDUCE):
            dtype = layer.get_input(0).dtype
            if dtype in (trt.float16, trt.bfloat16):
                found.append(f"{layer.name}: got {layer.type.name} of {dtype.name}, expected FLOAT")
        elif layer.type == trt.LayerType.CONSTANT and layer.get_output(0).dtype == trt.float16:
            layer.__class__ = trt.IConstantLayer  # get_layer returns the base class
            weights = np.asarray(layer.weights)
            largest = max(-float(weights.min()), float(weights.max())) if weights.size else 0.0
            if not largest <= LARGEST_FLOAT16_CONSTANT:  # true of NaN, too
                found.append(
                    f"{layer.name}: got a float16 constant of magnitude {largest}, expected at "
                    f"most {LARGEST_FLOAT16_CONSTANT:.0f}"
                )
    if found:
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        shown = "\n  ".join(found[:_SHOWN]) + more
        raise ExportError(
            f"the graph would lose precision in TensorRT:\n  {shown}\nExport the bundle again with "
            "this version of bitheads, or with --precision fp32."
        )


def _dtype(tensor: Any) -> str:
    return _TYPES.get(tensor.dtype.name, str(tensor.dtype.name))


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(i) for i in range(network.num_layers))
