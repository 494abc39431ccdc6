"""Which tensors of a graph become float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bitheads.export.graph_arithmetic import GraphArithmetic
from bitheads.export.mixed_graph import LARGEST, LARGEST_WEIGHT, lower

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def test_positions_are_counted_in_float32() -> None:
    """Angles of 4,097 and 4,098 would be the same."""
    model = _model(
        [
            helper.make_node("MatMul", ["positions", "frequencies"], ["angles"]),
            helper.make_node("Sin", ["angles"], ["hidden_1"]),
        ],
        {"frequencies": np.ones((1, 2), np.float32)},
        {"positions": ["seq", 1]},
    )
    assert lower(model, _magnitudes(model, positions=np.ones((3, 1), np.float32))) == []
    assert _types(model) == {"frequencies": FLOAT, "hidden_1": HALF}
    positions = np.array([[4097], [4098]], np.float32)
    (found,) = ReferenceEvaluator(model).run(None, {"positions": positions})
    np.testing.assert_allclose(found, np.sin(positions) * np.ones((1, 2)), atol=1e-3)


@pytest.mark.parametrize(
    ("of_weights", "of_input", "expected"),
    [
        (1, 1, {"weights": HALF, "hidden_1": HALF}),
        (LARGEST_WEIGHT, 1e-3, {"weights": HALF, "hidden_1": HALF}),
        (LARGEST_WEIGHT * 1.01, 1e-3, {"weights": FLOAT, "hidden_1": HALF}),
        (1, LARGEST / 4, {"weights": HALF, "hidden_1": HALF}),
        (1, LARGEST, {"weights": HALF, "hidden_1": FLOAT}),
        (1e-4, LARGEST * 2, {"weights": HALF, "hidden_1": HALF}),
        (1e-5, 1, {"weights": FLOAT, "hidden_1": FLOAT}),
        (0, 1, {"weights": HALF, "hidden_1": HALF}),
        (np.nan, 1, {"weights": FLOAT, "hidden_1": FLOAT}),
    ],
)
def test_a_product_is_in_float16_where_all_of_it_fits(
    of_weights: float, of_input: float, expected: dict[str, int]
) -> None:
    model = _model(
        [helper.make_node("MatMul", ["input", "weights"], ["hidden_1"])],
        {"weights": np.full((2, 2), of_weights, np.float32)},
        {"input": ["seq", 2]},
    )
    values = np.full((1, 2), of_input, np.float32)
    (exact,) = ReferenceEvaluator(model).run(None, {"input": values})
    lower(model, _magnitudes(model, input=values))
    assert _types(model) == expected
    (found,) = ReferenceEvaluator(model).run(None, {"input": values})
    np.testing.assert_allclose(found, exact, rtol=2e-3)


def test_sums_of_texts_are_in_float32_and_one_weight_serves_both() -> None:
    """Residuals are; a bias goes along with its product."""
    model = _model(
        [
            helper.make_node("MatMul", ["input", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["biased"]),
            helper.make_node("Relu", ["biased"], ["rectified"]),
            helper.make_node("Add", ["rectified", "biased"], ["hidden_1"]),
            helper.make_node("Mul", ["hidden_1", "weights"], ["hidden_2"]),
        ],
        {"weights": np.eye(2, dtype=np.float32), "bias": np.ones(2, np.float32)},
        {"input": [2, 2]},
    )
    lower(model, _magnitudes(model, input=np.ones((2, 2), np.float32)))
    made = {name: node for node in model.graph.node for name in node.output}
    assert list(made["biased"].input) == ["product", "bias_fp16"]
    assert list(made["rectified"].input) == ["biased"]
    assert list(made["hidden_1_within"].input) == ["rectified_fp32", "biased_fp32"]
    assert list(made["hidden_2_within"].input) == ["hidden_1_within", "weights_fp32"]
    assert _types(model) == {"weights": HALF, "bias": FLOAT, "hidden_1": HALF, "hidden_2": HALF}
    found = ReferenceEvaluator(model).run(None, {"input": np.ones((2, 2), np.float32)})
    np.testing.assert_array_equal(found, [np.full((2, 2), 4), 4 * np.eye(2)])


def test_what_a_condition_reads_keeps_its_type() -> None:
    inner = [
        helper.make_graph(
            [helper.make_node(kind, ["product"], ["chosen"])],
            kind,
            [],
            [helper.make_tensor_value_info("chosen", FLOAT, None)],
        )
        for kind in ("Neg", "Identity")
    ]
    model = _model(
        [
            helper.make_node("MatMul", ["input", "weights"], ["product"]),
            helper.make_node(
                "If", ["yes"], ["hidden_1"], then_branch=inner[0], else_branch=inner[1]
            ),
        ],
        {"weights": np.eye(2, dtype=np.float32), "yes": np.array(True)},
        {"input": [2, 2]},
    )
    ones = np.ones((2, 2), np.float32)
    (kept,) = lower(model, _magnitudes(model, input=ones))
    assert list(kept.output) == ["product"]
    (found,) = ReferenceEvaluator(model).run(None, {"input": ones})
    np.testing.assert_array_equal(found, -ones)


def _model(
    nodes: list[onnx.NodeProto], weights: Mapping[str, NDArray[Any]], inputs: Mapping[str, Any]
) -> onnx.ModelProto:
    outputs = sorted({name for node in nodes for name in node.output if name.startswith("hidden")})
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def _magnitudes(model: onnx.ModelProto, **inputs: NDArray[Any]) -> dict[str, float]:
    arithmetic = GraphArithmetic(model)
    values = {one.name: arithmetic.constant(one.name) for one in model.graph.initializer} | inputs
    for _, made in arithmetic.run(inputs):
        values.update(made)
    return {
        name: float(np.abs(of_one).max())
        for name, of_one in values.items()
        if of_one.dtype == np.float32
    }


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Of weights and outputs."""
    graph = model.graph
    found = {one.name: one.data_type for one in graph.initializer}
    found |= {port.name: port.type.tensor_type.elem_type for port in graph.output}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
    assert [port.type.tensor_type.elem_type for port in inferred] == [
        port.type.tensor_type.elem_type for port in graph.output
    ]
    return found
