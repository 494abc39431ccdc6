"""A product whose result is taken apart becomes a product for each part, of the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitheads.export.split_products import split_products

RNG = np.random.default_rng(3)
WEIGHTS = RNG.standard_normal((16, 48)).astype(np.float32)
BIAS = RNG.standard_normal(48).astype(np.float32)
OTHER = RNG.standard_normal((16, 16)).astype(np.float32)
X = RNG.standard_normal((2, 5, 16)).astype(np.float32)


def _model(nodes: list[onnx.NodeProto], outputs: list[str], **constants: Any) -> onnx.ModelProto:
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *outputs)
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "seq", 16])],
        ports[1:],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def _run(model: onnx.ModelProto) -> list[NDArray[np.float32]]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: list[NDArray[np.float32]] = session.run(None, {"x": X})
    return found


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("sizes", [None, [8, 24, 16]])
def test_a_split(with_bias: bool, sizes: list[int] | None) -> None:
    product = "product" if with_bias else "sum"
    nodes = [helper.make_node("MatMul", ["x", "w"], [product])]
    constants: dict[str, Any] = {"w": WEIGHTS}
    if with_bias:
        nodes.append(helper.make_node("Add", ["b", product], ["sum"]))
        constants["b"] = BIAS
    names = ["p", "q", "r"]
    if sizes is None:
        nodes.append(helper.make_node("Split", ["sum"], names, axis=-1, num_outputs=3))
    else:
        nodes.append(helper.make_node("Split", ["sum", "sizes"], names, axis=2))
        constants["sizes"] = np.array(sizes, np.int64)
    model = _model(nodes, names, **constants)
    expected = _run(model)
    assert split_products(model.graph) == 1
    assert _operators(model) == (["MatMul", "Add"] if with_bias else ["MatMul"]) * 3
    for one, other in zip(_run(model), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def _unbound(axis: int, shape: list[int]) -> onnx.ModelProto:
    """Queries, keys and values as transformers takes them out of one product."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Reshape", ["product", "shape"], ["view"]),
    ]
    constants: dict[str, Any] = {
        "w": WEIGHTS,
        "shape": np.array([0, 0, *shape], np.int64),
        "axis": np.array([axis], np.int64),
    }
    for part in range(3):
        constants[f"at{part}"] = np.array([part], np.int64)
        constants[f"end{part}"] = np.array([part + 1], np.int64)
        nodes += [
            helper.make_node("Slice", ["view", f"at{part}", f"end{part}", "axis"], [f"s{part}"]),
            helper.make_node("Squeeze", [f"s{part}", "axis"], [f"part{part}"]),
        ]
    return _model(nodes, ["part0", "part1", "part2"], **constants)


@pytest.mark.parametrize("axis", [2, -3])
def test_parts_that_are_unbound(axis: int) -> None:
    model = _unbound(axis, [3, 4, 4])
    expected = _run(model)
    assert split_products(model.graph) == 1
    assert _operators(model) == ["MatMul", "Reshape"] * 3
    for one, other in zip(_run(model), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_parts_of_each_head_stay() -> None:
    """Of GPT-NeoX each head has its query, key and value side by side."""
    model = _unbound(3, [4, 3, 4])
    assert split_products(model.graph) == 0
    assert _operators(model).count("MatMul") == 1


def test_a_product_that_is_also_read_whole_stays() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Split", ["product"], ["p", "q"], axis=2, num_outputs=2),
        helper.make_node("Relu", ["product"], ["r"]),
    ]
    model = _model(nodes, ["p", "q", "r"], w=WEIGHTS)
    assert split_products(model.graph) == 0


def test_a_split_of_another_axis_stays() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Split", ["product", "sizes"], ["p", "q"], axis=1),
    ]
    model = _model(nodes, ["p", "q"], w=WEIGHTS, sizes=np.array([2, 3], np.int64))
    assert split_products(model.graph) == 0


def test_a_product_of_two_activations_stays() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["other"]),
        helper.make_node("MatMul", ["x", "other"], ["product"]),
        helper.make_node("Split", ["product"], ["p", "q"], axis=2, num_outputs=2),
    ]
    model = _model(nodes, ["p", "q"], v=OTHER)
    assert split_products(model.graph) == 0
