"""Float16 graphs in float16 arithmetic, against ONNX's own reference and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bitheads.export.graph_arithmetic import GraphArithmetic

HALF = TensorProto.FLOAT16
VALUES = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float16) * 4


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_curves_are_rounded_once(approximate: str) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
    exact = torch.nn.functional.gelu(
        torch.from_numpy(VALUES.astype(np.float64)), approximate=approximate
    )
    _close(_run(node, x=VALUES), exact.numpy())
    _close(
        _run(helper.make_node("Erf", ["x"], ["y"]), x=VALUES), torch.erf(_double(VALUES)).numpy()
    )


def test_sums_are_rounded_once() -> None:
    weights = VALUES[0].T
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    _close(_run(node, x=VALUES, w=weights), VALUES.astype(np.float64) @ weights.astype(np.float64))
    ones = np.ones(8, np.float16)
    node = helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], epsilon=1e-5)
    exact = torch.nn.functional.layer_norm(_double(VALUES), (8,))
    _close(_run(node, x=VALUES, scale=ones, bias=ones), exact.numpy() + 1)


def test_elementwise_operators_overflow() -> None:
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    found = _run(node, x=np.array([255, 257], np.float16))
    assert found.tolist() == [65024, np.inf]


@pytest.mark.parametrize("axis", [1, -1])
def test_elements_are_gathered_where_other_axes_are_shorter(axis: int) -> None:
    rows = np.array([[[3, 0], [1, 1]]])
    node = helper.make_node("GatherElements", ["x", "rows"], ["y"], axis=axis)
    found = _run(node, x=VALUES, rows=rows)
    exact = torch.gather(torch.from_numpy(VALUES), axis, torch.from_numpy(rows))
    np.testing.assert_array_equal(found, exact.numpy())


def _double(values: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float64))


def _close(found: NDArray[Any], exact: NDArray[Any]) -> None:
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=2**-10, atol=2**-16)


def _run(node: onnx.NodeProto, **inputs: NDArray[Any]) -> NDArray[Any]:
    graph = helper.make_graph(
        [node],
        "tested",
        [helper.make_tensor_value_info(name, HALF, None) for name in inputs],
        [helper.make_tensor_value_info("y", HALF, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    ((_, made),) = GraphArithmetic(model).run(inputs)
    return made["y"]
