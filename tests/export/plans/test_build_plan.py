"""Plans built from real graphs by TensorRT-RTX, which needs no GPU for it.

TensorRT proper cannot be installed without one: what is its own is tested with stand-ins, each
of which says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plan_cases import ONE_PROFILE, RTX, needs_rtx, plan_files
from tiny_encoders import num_layers

from benchmarks.model_types.plan_kernels import FUSED_ATTENTION, count, plan_kernels
from bitheads.engine import PlanError, bundle
from bitheads.engine.bundle import graph_sha256
from bitheads.engine.device.plan import Profile, find_plan
from bitheads.export.errors import ExportError
from bitheads.export.plans import build_plan as building
from bitheads.export.plans import network_checks, tensorrt_module
from bitheads.export.plans.build_plan import build_plan, resolve_plan
from bitheads.export.plans.plan_config import (
    NO_PLAN,
    PlanConfig,
    default_profiles,
)

LAYERS = num_layers("bert")


@needs_rtx
def test_a_plan_says_what_it_is(own_bundle: Path, trt: Any) -> None:
    manifest = bundle.read_manifest(own_bundle)
    before = (own_bundle / bundle.MANIFEST).read_bytes()
    said: list[str] = []
    config = replace(RTX, capabilities=("12.0", "8.6"), workspace_gib=2.5)
    built = build_plan(own_bundle, manifest, config, said.append)
    assert built is not None
    info = built.info
    assert info.compute_capabilities == ("8.6", "12.0")
    assert (info.flavour, info.version) == ("tensorrt-rtx", trt.__version__)
    assert info.graph_sha256 == graph_sha256(manifest.artifacts)
    assert info.precision == "fp16"
    assert info.profiles == ONE_PROFILE
    assert info.inputs == {
        "input_ids": "int64",
        "attention_mask": "int64",
        "token_type_ids": "int64",
    }
    assert info.outputs == dict.fromkeys(manifest.output_names, "float16")
    assert info.options == {"workspace_bytes": 5 << 29, "tf32": False}
    assert built.path.name.endswith(f".tensorrt-rtx-{trt.__version__}.sm_86+sm_120.plan")
    assert any("8.6, 12.0, 1 profiles" in line for line in said)
    assert any(built.path.name in line for line in said)
    found = find_plan(
        own_bundle, graph_sha256(manifest.artifacts), "tensorrt-rtx", trt.__version__, "12.0"
    )
    assert found == built
    assert len(found.read_bytes()) == info.plan_bytes > 100_000
    assert (own_bundle / bundle.MANIFEST).read_bytes() == before
    bundle.verify(own_bundle, bundle.read_manifest(own_bundle))


@needs_rtx
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta"])
def test_every_family(build_bundle: Callable[..., Path], tmp_path: Path, family: str) -> None:
    folder = Path(shutil.copytree(build_bundle(family), tmp_path / family))
    built = build_plan(folder, bundle.read_manifest(folder), RTX)
    assert built is not None
    assert ("token_type_ids" in built.info.inputs) == (family == "bert")


@needs_rtx
def test_a_graph_in_fp32(build_bundle: Callable[..., Path], tmp_path: Path) -> None:
    source = build_bundle("distilbert", precision="fp32")
    folder = Path(shutil.copytree(source, tmp_path / "fp32"))
    built = build_plan(folder, bundle.read_manifest(folder), RTX)
    assert built is not None
    assert set(built.info.outputs.values()) == {"float32"}
    assert built.info.precision == "fp32"


@needs_rtx
@pytest.mark.long
def test_sixteen_outputs(own_deep_bundle: Path) -> None:
    built = build_plan(own_deep_bundle, bundle.read_manifest(own_deep_bundle), RTX)
    assert built is not None
    assert list(built.info.outputs) == [f"hidden_{i}" for i in range(1, 17)]


@needs_rtx
def test_the_defaults(own_bundle: Path) -> None:
    config = PlanConfig(flavour="tensorrt-rtx")
    built = build_plan(own_bundle, bundle.read_manifest(own_bundle), config)
    assert built is not None
    assert built.info.profiles == default_profiles(64)
    assert built.info.compute_capabilities[0] == "8.0", "Turing only when asked for"
    assert "12.0" in built.info.compute_capabilities


@needs_rtx
def test_the_same_plan_is_replaced_and_another_is_added(own_bundle: Path) -> None:
    manifest = bundle.read_manifest(own_bundle)
    for _ in range(2):
        build_plan(own_bundle, manifest, replace(RTX, capabilities=("8.9",)))
        assert len(plan_files(own_bundle)) == 2
    build_plan(own_bundle, manifest, replace(RTX, capabilities=("8.6",)))
    assert len(plan_files(own_bundle)) == 4


@needs_rtx
def test_a_graph_that_would_lose_precision_makes_no_plan(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_checks, "LARGEST_FLOAT16_CONSTANT", 1e3)
    with pytest.raises(ExportError, match="would lose precision"):
        build_plan(own_bundle, bundle.read_manifest(own_bundle), RTX)
    assert plan_files(own_bundle) == []


@needs_rtx
def test_a_graph_that_cannot_be_parsed(own_bundle: Path) -> None:
    (own_bundle / bundle.GRAPH).write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"tensorrt-rtx: cannot read .*encoder\.onnx: .+"):
        build_plan(own_bundle, bundle.read_manifest(own_bundle), RTX)


@needs_rtx
def test_what_tensorrt_says_is_wrong_is_in_the_error(own_bundle: Path) -> None:
    config = replace(RTX, workspace_gib=1e-5)
    with pytest.raises(ExportError, match=r"cannot build a plan: .*workspace.*--plan-workspace"):
        build_plan(own_bundle, bundle.read_manifest(own_bundle), config)
    assert plan_files(own_bundle) == []


@needs_rtx
def test_profiles_are_bound_by_the_encoder(own_bundle: Path) -> None:
    config = replace(RTX, profiles=(*ONE_PROFILE, Profile((1, 1), (1, 65), (1, 65))))
    with pytest.raises(ExportError, match="1x1,1x65,1x65: got 65 tokens, expected at most 64"):
        build_plan(own_bundle, bundle.read_manifest(own_bundle), config)


def test_a_builder_that_does_not_start_is_an_error() -> None:
    """A stand-in for TensorRT on a machine whose driver does not work: pybind11 says this."""

    class Builder:
        def __init__(self, logger: Any) -> None:
            logger.errors.append("CUDA initialization failure with error: 35.")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    logger = SimpleNamespace(errors=[])
    with pytest.raises(ExportError, match=r"does not start \(CUDA initialization failure"):
        building._create_builder(SimpleNamespace(Builder=Builder), logger, "tensorrt")


@needs_rtx
def test_a_plan_that_is_not_for_the_gpu_at_hand_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """9.0 is Hopper, which RTX does not build for."""
    for gpu, expected in ((None, 0), ("8.6", 0), ("9.0", 1)):
        monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda gpu=gpu: gpu)
        said: list[str] = []
        resolve_plan(RTX, said.append)
        assert len(said) == expected


@needs_rtx
@pytest.mark.parametrize(
    ("precision", "capability", "listed"),
    [
        ("fp8", "8.9", "FP8"),
        ("fp8", "12.0", "FP8"),
        ("int8", "8.0", "Int8"),
        ("int8", "8.9", "Int8"),
    ],
)
def test_products_of_a_quantized_graph_are_in_8_bits(
    build_bundle: Callable[..., Path], precision: str, capability: str, listed: str
) -> None:
    """By RTX's own list of kernels; attention stays one kernel, in float16."""
    folder = build_bundle("bert", plan=replace(NO_PLAN, precision=precision))
    for graph, expected in ((bundle.GRAPH, "Half"), (bundle.GPU_GRAPHS[precision], listed)):
        kernels = plan_kernels(folder / graph, ONE_PROFILE[0], capability)
        products = [kernel for kernel in kernels if "MatMul" in kernel.name]
        if graph != bundle.GRAPH:
            assert len(products) in (4 * LAYERS, 6 * LAYERS), "queries, keys, values may be one"
        for kernel in products:
            assert f"Datatype: {expected}," in kernel.inputs.split("Constants")[0], kernel
        assert count(kernels, FUSED_ATTENTION) == LAYERS
        for kernel in kernels:
            if FUSED_ATTENTION in kernel.name:
                assert "Datatype: Half," in kernel.inputs


@needs_rtx
@pytest.mark.parametrize("precision", bundle.GPU_GRAPHS)
def test_a_plan_of_a_quantized_graph_says_so(
    build_bundle: Callable[..., Path], tmp_path: Path, trt: Any, precision: str
) -> None:
    source = build_bundle("bert", plan=replace(NO_PLAN, precision=precision))
    folder = Path(shutil.copytree(source, tmp_path / "bundle"))
    manifest = bundle.read_manifest(folder)
    built = build_plan(folder, manifest, replace(RTX, precision=precision, capabilities=("8.9",)))
    assert built is not None
    assert built.path.name.startswith(f"encoder.{precision}.")
    assert built.info.precision == precision
    assert set(built.info.outputs.values()) == {"float16"}
    quantized, own = (
        graph_sha256(manifest.artifacts, name)
        for name in (bundle.GPU_GRAPHS[precision], bundle.GRAPH)
    )
    place = folder, "tensorrt-rtx", trt.__version__, "8.9"
    assert find_plan(place[0], quantized, *place[1:], precision) == built
    with pytest.raises(PlanError, match="graph_sha256 is"):
        find_plan(place[0], own, *place[1:])


@needs_rtx
def test_a_bundle_without_the_graph_says_how_to_make_it(own_bundle: Path) -> None:
    manifest = bundle.read_manifest(own_bundle)
    with pytest.raises(ExportError, match=r"has no encoder\.fp8\.onnx.*build --plan-precision fp8"):
        build_plan(own_bundle, manifest, replace(RTX, precision="fp8"))
    assert plan_files(own_bundle) == []


def test_without_tensorrt_auto_makes_no_plan(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: None)
    said: list[str] = []
    assert resolve_plan(PlanConfig(), said.append) == NO_PLAN
    kept = resolve_plan(PlanConfig(precision="int8"))
    assert kept == replace(NO_PLAN, precision="int8"), "whose graph a build writes all the same"
    assert said == ["no TensorRT here, so no plan. To build one: pip install 'bitheads[rtx]'"]
    manifest = bundle.read_manifest(tiny_bundle)
    assert build_plan(tiny_bundle, manifest, PlanConfig()) is None
    assert plan_files(tiny_bundle) == []


@needs_rtx
def test_tensorrt_takes_the_same_path(
    own_bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RTX stands in for TensorRT, which it shares its module's names with; a GPU is made up."""
    monkeypatch.setitem(tensorrt_module.MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: "9.0")
    config = replace(RTX, flavour="auto")
    built = build_plan(own_bundle, bundle.read_manifest(own_bundle), config)
    assert built is not None
    assert built.path.name.endswith(f".tensorrt-{trt.__version__}.sm_90.plan")
    assert built.info.compute_capabilities == ("9.0",)


@needs_rtx
def test_a_plan_for_a_fleet_says_so(
    own_bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above; RTX has the attribute for the level, and ignores it."""
    monkeypatch.setitem(tensorrt_module.MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: "8.6")
    manifest, said = bundle.read_manifest(own_bundle), []
    config = replace(RTX, flavour="tensorrt", compatibility=("ampere+",))
    built = build_plan(own_bundle, manifest, config, said.append)
    assert built is not None
    assert built.path.name.endswith(f".tensorrt-{trt.__version__}.sm_86.ampere+.plan")
    assert any("8.6 (ampere+), 1 profiles" in line for line in said)
    graph = graph_sha256(manifest.artifacts)
    assert find_plan(own_bundle, graph, "tensorrt", trt.__version__, "9.0") == built
    exact = build_plan(own_bundle, manifest, replace(config, compatibility=()))
    assert find_plan(own_bundle, graph, "tensorrt", trt.__version__, "8.6") == exact
