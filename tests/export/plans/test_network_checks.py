"""What TensorRT makes of a graph, and which graphs are refused before a plan is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from plan_cases import DEEP_LAYERS, ONE_PROFILE, RTX, needs_rtx, parse, plan_files, save

from benchmarks.model_types.plan_kernels import FUSED_ATTENTION, count, plan_kernels
from bitheads.engine import bundle
from bitheads.export.errors import ExportError
from bitheads.export.onnx_graph import export_graph
from bitheads.export.plans import network_checks
from bitheads.export.plans.build_plan import build_plan
from bitheads.export.plans.network_checks import check_numerics, check_tensors


@needs_rtx
def test_kernels_normalize_in_float32(deep_bundle: Path) -> None:
    """RTX 1.7 has no such setting; it lists its kernels, which cast before they sum.

    A residual sum, then the normalization, is ...AddCastMeanSubMulMeanAddSqrtDivMulCast...; where
    it is cut in two kernels, float32 passes between them. Attention is one kernel.
    """
    kernels = plan_kernels(deep_bundle / bundle.GRAPH, ONE_PROFILE[0])
    normalize = [kernel for kernel in kernels if "Mean" in kernel.name]
    assert len(normalize) >= 2 * DEEP_LAYERS
    for kernel in normalize:
        assert "CastMeanSubMulMean" in kernel.name, kernel.name
        if kernel.name.split("_myl0")[0].endswith("Mean"):
            assert "Half" not in kernel.outputs.split("TacticName")[0], kernel.outputs
    assert count(kernels, FUSED_ATTENTION) == DEEP_LAYERS
    assert not any("Soft" in kernel.name for kernel in kernels)


@needs_rtx
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_our_graphs_keep_their_precision(
    build_bundle: Callable[..., Path], trt: Any, precision: str
) -> None:
    folder = build_bundle("distilbert", precision=precision)
    network, *alive = parse(trt, folder / bundle.GRAPH)
    check_numerics(trt, network)
    types = [layer.type for layer in network_checks._layers(network)]
    assert types.count(trt.LayerType.SOFTMAX) == 2
    assert types.count(trt.LayerType.NORMALIZATION) == 5
    assert alive


@needs_rtx
def test_a_softmax_in_float16_is_refused(
    tiny_encoder: Callable[[str], Path], tmp_path: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what the exporter's own graph would have, had it no casts."""
    from bitheads.export.source.encoder import load_encoder

    monkeypatch.setattr("bitheads.export.onnx_graph._softmax_in_fp32", lambda graph: None)
    encoder = load_encoder(str(tiny_encoder("distilbert")))
    export_graph(encoder, (1, 2), "fp16", tmp_path / "encoder.onnx")
    network, *_alive = parse(trt, tmp_path / "encoder.onnx")
    with pytest.raises(ExportError, match=r"got SOFTMAX of HALF, expected FLOAT") as error:
        check_numerics(trt, network)
    assert len(str(error.value).splitlines()) == 4, "both softmaxes, and what to do"
    assert "Export the bundle again" in str(error.value)


@needs_rtx
@pytest.mark.parametrize("value", [-65504.0, 65504.0, -np.inf, np.inf, np.nan])
def test_a_float16_constant_at_the_end_of_its_range_is_refused(
    tiny_bundle: Path, tmp_path: Path, trt: Any, value: float
) -> None:
    """The mask is such a constant in the graphs of others."""
    model = onnx.load(tiny_bundle / bundle.GRAPH)
    (mask,) = (
        initializer
        for initializer in model.graph.initializer
        if initializer.data_type == TensorProto.FLOAT16
        and numpy_helper.to_array(initializer).size == 1
        and numpy_helper.to_array(initializer).min() == -1e4
    )
    mask.CopyFrom(numpy_helper.from_array(np.float16(value).reshape(mask.dims), mask.name))
    network, *_alive = parse(trt, save(model, tmp_path / "encoder.onnx"))
    with pytest.raises(ExportError, match=r"got a float16 constant of magnitude (65504|inf|nan)"):
        check_numerics(trt, network)


@needs_rtx
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_a_sum_in_float16_is_refused(tmp_path: Path, trt: Any, dtype: int) -> None:
    """A normalization that is written out in the graph has one, and its squares overflow."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[-1], keepdims=1)],
        "g",
        [helper.make_tensor_value_info("x", dtype, ["rows", 8])],
        [helper.make_tensor_value_info("y", dtype, ["rows", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    network, *_alive = parse(trt, save(model, tmp_path / "mean.onnx"))
    if dtype == TensorProto.FLOAT:
        check_numerics(trt, network)
    else:
        with pytest.raises(ExportError, match="got REDUCE of HALF, expected FLOAT"):
            check_numerics(trt, network)


@needs_rtx
@pytest.mark.parametrize(
    ("spec", "encoder", "message"),
    [
        ({"layers": (3,)}, {}, r"got the outputs \['hidden_2', 'hidden_3'\], expected"),
        ({"layers": (1, 3)}, {}, r"expected \['hidden_1', 'hidden_3'\]"),
        ({"dim": 32}, {}, r"hidden_2 is float16 \[-1, -1, 64\], expected float16 \[-1, -1, 32\]"),
        ({}, {"precision": "fp32"}, r"hidden_2 is float16 .*, expected float32"),
    ],
)
def test_a_graph_that_is_not_the_manifests_is_refused(
    own_bundle: Path, spec: dict[str, Any], encoder: dict[str, Any], message: str
) -> None:
    manifest = bundle.read_manifest(own_bundle)
    manifest = replace(
        manifest,
        spec=replace(manifest.spec, **spec),
        encoder=replace(manifest.encoder, **encoder),
    )
    with pytest.raises(ExportError, match=message):
        build_plan(own_bundle, manifest, RTX)
    assert plan_files(own_bundle) == []


@needs_rtx
def test_outputs_are_float32_where_float16_cannot_hold_them(
    own_bundle: Path, tmp_path: Path, trt: Any
) -> None:
    """All of them, for what reads them takes one type."""
    manifest = bundle.read_manifest(own_bundle)
    model = onnx.load(own_bundle / bundle.GRAPH)
    first, second = model.graph.output
    for port, message in ((first, "hidden_3 is float16 .*, expected float32"), (second, None)):
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = f"{name}_within" if name == port.name else name
        model.graph.node.append(
            helper.make_node("Cast", [f"{port.name}_within"], [port.name], to=TensorProto.FLOAT)
        )
        port.type.tensor_type.elem_type = TensorProto.FLOAT
        network, *_alive = parse(trt, save(model, tmp_path / "encoder.onnx"))
        if message:
            with pytest.raises(ExportError, match=message):
                check_tensors(network, manifest)
        else:
            _, outputs = check_tensors(network, manifest)
            assert outputs == {"hidden_2": "float32", "hidden_3": "float32"}


@needs_rtx
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("attention_mask", "mask", r"got the inputs \['input_ids', 'mask'"),
        ("token_type_ids", "lengths", "of which the last may be absent"),
    ],
)
def test_inputs_the_engine_does_not_have_are_refused(
    own_bundle: Path, old: str, new: str, message: str
) -> None:
    path = own_bundle / bundle.GRAPH
    path.write_bytes(path.read_bytes())
    model = onnx.load(path)
    for port in model.graph.input:
        port.name = new if port.name == old else port.name
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
    save(model, path)
    with pytest.raises(ExportError, match=message):
        build_plan(own_bundle, bundle.read_manifest(own_bundle), RTX)
