"""The graph in 8 bits for GPUs: what is quantized, how it is rounded, how close it stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_encoders import FAMILIES, num_layers

from bitheads.engine.bundle import GPU_GRAPHS, GRAPH, graph_sha256, read_manifest, verify
from bitheads.engine.errors import BundleError
from bitheads.engine.sessions import open_session
from bitheads.engine.types import TokenBatch
from bitheads.export.build import main
from bitheads.export.config import MIN_SIGN_AGREEMENT
from bitheads.export.errors import ExportError
from bitheads.export.gpu_graph import KINDS, quantize_for_gpus
from bitheads.export.plans.plan_config import PlanConfig

BuildBundle = Callable[..., Path]
TYPES = {"fp8": TensorProto.FLOAT8E4M3FN, "int8": TensorProto.INT8}


def without_plan(precision: str) -> PlanConfig:
    return PlanConfig(flavour="none", precision=precision)


@pytest.fixture(scope="module", params=GPU_GRAPHS)
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(build_bundle: BuildBundle, precision: str) -> Path:
    return build_bundle("bert", plan=without_plan(precision))


def test_it_is_one_more_artifact(folder: Path, precision: str, tiny_bundle: Path) -> None:
    """Neither the graph nor its hash, by which plans and compiled graphs are known, change."""
    manifest, plain = read_manifest(folder), read_manifest(tiny_bundle)
    assert {*manifest.artifacts} - {*plain.artifacts} == {GPU_GRAPHS[precision]}
    assert manifest.artifacts[GRAPH] == plain.artifacts[GRAPH]
    assert manifest.encoder == plain.encoder
    assert manifest.spec.id == plain.spec.id
    assert graph_sha256(manifest.artifacts) == graph_sha256(plain.artifacts)
    own = graph_sha256(manifest.artifacts, GPU_GRAPHS[precision])
    assert own == manifest.artifacts[GPU_GRAPHS[precision]].sha256 != graph_sha256(plain.artifacts)
    verify(folder, manifest)


def test_its_parity_is_reported(folder: Path, precision: str) -> None:
    parity = read_manifest(folder).parity
    sessions = parity["sessions"]
    found = sessions[f"simulated {precision}"]["pooled"]["sign_agreement"]
    assert MIN_SIGN_AGREEMENT[precision] <= found < 1
    assert found < sessions["openvino fp32"]["pooled"]["sign_agreement"]
    assert {*sessions[f"simulated {precision}"]["layers"]} == {*sessions["openvino fp32"]["layers"]}
    assert parity["gpu_graph"] == {"precision": precision, "products": 6 * num_layers("bert")}


@pytest.mark.parametrize("family", FAMILIES)
def test_products_with_weights_are_in_8_bits_and_no_others(
    build_bundle: BuildBundle, family: str
) -> None:
    model = onnx.load(build_bundle(family, plan=without_plan("fp8")) / GPU_GRAPHS["fp8"])
    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {one.name: one for one in model.graph.initializer}
    in_8_bits, plain = [], []
    for node in model.graph.node:
        if node.op_type == "MatMul":
            sources = [makers[name].op_type for name in node.input if name in makers]
            is_quantized = sources == ["DequantizeLinear"] * 2
            assert is_quantized or "DequantizeLinear" not in sources
            (in_8_bits if is_quantized else plain).append(node)
    assert len(in_8_bits) == 6 * num_layers(family)
    assert len(plain) == 2 * num_layers(family), "attention's own"
    for node in in_8_bits:
        weights = stored[makers[node.input[1]].input[0]]
        assert weights.data_type == TYPES["fp8"]
        quantize = makers[makers[node.input[0]].input[0]]
        assert quantize.op_type == "QuantizeLinear"
        assert not stored[quantize.input[1]].dims, "one step for a tensor of activations"


def test_its_ports_are_those_of_the_graph(folder: Path, precision: str) -> None:
    plain, quantized = (onnx.load(folder / name) for name in (GRAPH, GPU_GRAPHS[precision]))
    for ports in ("input", "output"):
        assert getattr(plain.graph, ports) == getattr(quantized.graph, ports)


def test_the_same_build_is_the_same_file(folder: Path, precision: str, tmp_path: Path) -> None:
    batch = tokens(np.arange(12).reshape(2, 6) + 5, [6, 4])
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files, _ = quantize_for_gpus(folder / GRAPH, "fp16", precision, [batch], tmp_path / name)
        made.append(files[0].read_bytes())
    assert made[0] == made[1]


def tokens(ids: np.ndarray, lengths: list[int]) -> TokenBatch:
    mask = (np.arange(ids.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    return TokenBatch(ids.astype(np.int64), mask, np.zeros_like(mask), np.array(lengths, np.int64))


FEATURES, OUTPUTS = 24, 8


def one_product(path: Path, table: np.ndarray, weights: np.ndarray) -> Path:
    """Rows of a table by token, times weights."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["hidden_1"]),
        ],
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "seq"])],
        [helper.make_tensor_value_info("hidden_1", TensorProto.FLOAT, ["rows", "seq", OUTPUTS])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def rounded(values: torch.Tensor, steps: torch.Tensor, precision: str) -> torch.Tensor:
    """In 8 bits and back, by torch's own types."""
    if precision == "fp8":
        return (values / steps).to(torch.float8_e4m3fn).float() * steps
    return (values / steps).round().clamp(-127, 127) * steps


@pytest.mark.parametrize("precision", GPU_GRAPHS)
def test_a_product_is_what_torch_makes_of_it(precision: str, tmp_path: Path) -> None:
    """Steps, moved outliers and rounding, written once more; and the backend that simulates."""
    random = np.random.default_rng(3)
    table = random.normal(size=(50, FEATURES)).astype(np.float32)
    table[:, 5] *= 30  # an outlier
    weights = random.normal(size=(FEATURES, OUTPUTS)).astype(np.float32) / 5
    weights[:, 2] *= 40
    batch = tokens(random.integers(0, 49, (3, 7)), [7, 2, 5])
    batch.input_ids[1, 2:] = 49  # padding, which a text may have in it
    table[49] *= 2
    graph = one_product(tmp_path / "encoder.onnx", table, weights)
    (path,), report = quantize_for_gpus(graph, "fp32", precision, [batch], tmp_path)
    assert report == {"precision": precision, "products": 1}

    x, w = torch.from_numpy(table[batch.input_ids]), torch.from_numpy(weights)
    seen = x.abs().amax((0, 1))
    if precision == "int8":
        moved = seen**0.9 / w.abs().amax(1) ** 0.1
        moved = moved / moved.log().mean().exp()
        x, w, seen = x / moved, w * moved[:, None], seen / moved
    largest = {"fp8": 448.0, "int8": 127.0}[precision]
    expected = rounded(x, seen.amax() / largest, precision) @ rounded(
        w, w.abs().amax(0) / largest, precision
    )
    session = open_session(path, ["hidden_1"], "openvino", "fp32")
    found = session.run(batch)[0]
    # A number that lies between two of 8 bits may go to either, by a last digit.
    error = np.abs(found - expected.numpy())
    assert np.quantile(error, 0.8) < 1e-4 * np.abs(expected.numpy()).max()
    exact = table[batch.input_ids] @ weights
    lost = np.abs(exact - expected.numpy()).mean()
    assert error.mean() < 0.1 * lost, "as torch's, and not merely close to the exact product"


@pytest.mark.parametrize("precision", GPU_GRAPHS)
def test_numbers_beyond_those_that_were_seen_end_at_the_largest(
    precision: str, tmp_path: Path
) -> None:
    """As TensorRT's do: E4M3 would have NaN there."""
    table = np.ones((3, FEATURES), np.float32)
    table[2] = 1e5
    weights = np.ones((FEATURES, OUTPUTS), np.float32)
    graph = one_product(tmp_path / "encoder.onnx", table, weights)
    (path,), _ = quantize_for_gpus(
        graph, "fp32", precision, [tokens(np.ones((1, 4)), [4])], tmp_path
    )
    session = open_session(path, ["hidden_1"], "openvino", "fp32")
    found = session.run(tokens(np.array([[0, 1, 2, 2]]), [4]))[0]
    np.testing.assert_allclose(found, FEATURES, rtol=1e-3)


def test_weights_are_rounded_to_the_nearest() -> None:
    values = np.array([0, 1.4, -1.5, 2.5, 1000, -1000, 448, 240.1], np.float32)
    as_int8 = np.frombuffer(KINDS["int8"].round(values), np.int8)
    assert as_int8.tolist() == [0, 1, -2, 2, 127, -127, 127, 127]
    as_fp8 = torch.frombuffer(bytearray(KINDS["fp8"].round(values)), dtype=torch.float8_e4m3fn)
    assert as_fp8.float().tolist() == [0, 1.375, -1.5, 2.5, 448, -448, 448, 240]


def test_what_a_graph_keeps_in_float32_stays_so(tmp_path: Path) -> None:
    table, weights = np.ones((3, FEATURES), np.float32), np.ones((FEATURES, OUTPUTS), np.float32)
    graph = one_product(tmp_path / "encoder.onnx", table, weights)
    with pytest.raises(ExportError, match=r"has no product of fp16 with weights that reads"):
        quantize_for_gpus(graph, "fp16", "fp8", [tokens(np.ones((1, 4)), [4])], tmp_path)


def test_a_graph_in_fp32_can_be_quantized_too(build_bundle: BuildBundle) -> None:
    folder = build_bundle("distilbert", precision="fp32", plan=without_plan("fp8"))
    assert read_manifest(folder).parity["gpu_graph"]["products"] == 6 * num_layers("distilbert")


@pytest.mark.parametrize("precision", GPU_GRAPHS)
def test_too_few_equal_signs_are_refused(
    tiny_encoder: Any,
    few_texts: Path,
    traced_once: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    output = tmp_path / "out"
    arguments = [
        *("--encoder", str(tiny_encoder("bert")), "--calibration", str(few_texts)),
        *("--plan", "none", "--plan-precision", precision, "--output", str(output)),
    ]
    assert main([*arguments, "--min-sign-agreement", "0.999"]) == 1
    shown = capsys.readouterr().err
    assert f"simulated {precision}: 9" in shown.split("does not match its source")[1]
    assert "--plan-precision" in shown
    assert not output.exists()
    assert main(arguments) == 0
    assert (output / GPU_GRAPHS[precision]).is_file()
    assert not (output / "plans").exists()


def test_weights_beside_it_are_verified(folder: Path, precision: str, tmp_path: Path) -> None:
    """It is a graph that is run, so it may not read files that nobody knows."""
    model = onnx.load(folder / GPU_GRAPHS[precision])
    (tmp_path / "other").mkdir()
    path = tmp_path / "other" / GPU_GRAPHS[precision]
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(BundleError, match="reads the file 'weights', which is not among"):
        verify(tmp_path / "other", read_manifest(folder))
