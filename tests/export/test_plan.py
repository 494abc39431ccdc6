"""Plans built from real graphs by TensorRT-RTX, which needs no GPU for it.

TensorRT proper cannot be installed without one: what is its own is tested with stand-ins, each
of which says so.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitheads.engine import FeatureSpec, LayerPooling, Order, PlanError, Quantization, bundle
from bitheads.engine.bundle import graph_sha256
from bitheads.engine.device.plan import find_plan
from bitheads.engine.device.profile import Profile, choose_profile
from bitheads.export import build, plan, plan_progress, tensorrt_module
from bitheads.export.encoder import Encoder
from bitheads.export.errors import ExportError
from bitheads.export.onnx_graph import export_graph
from bitheads.export.plan_config import (
    LATENCY_SEQ,
    MAX_TOKENS,
    NO_PLAN,
    PlanConfig,
    default_profiles,
)

ROOT = Path(__file__).parents[2]
needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed. Type: make device, "
    "or pip install -e '.[rtx]' -c constraints-device.txt",
)
ONE_PROFILE = (Profile((1, 1), (4, 16), (8, 32)),)
RTX = PlanConfig(flavour="tensorrt-rtx", profiles=ONE_PROFILE)
DEEP_LAYERS = 16


@pytest.fixture(scope="session")
def trt() -> Any:
    return tensorrt_module.load("tensorrt-rtx")


@pytest.fixture(scope="session")
def deep_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RoBERTa with 16 outputs, of little width; not to be written to."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=DEEP_LAYERS,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=130,
        type_vocab_size=1,
        attn_implementation="eager",
    )
    encoder = Encoder(
        name="deep",
        model=RobertaModel(config, add_pooling_layer=False),
        tokenizer=None,
        model_type="roberta",
        num_layers=DEEP_LAYERS,
        attention_heads=4,
        dim=64,
        max_length=128,
        pad_id=1,
        weights_sha256="0" * 64,
        vocabulary=100,
        token_types=None,
        reads_token_types=False,
    )
    layers = tuple(range(1, DEEP_LAYERS + 1))
    folder = tmp_path_factory.mktemp("deep")
    written = export_graph(encoder, layers, "fp16", folder / bundle.GRAPH)
    written.append(folder / bundle.TOKENIZER)  # which no plan reads
    written[-1].write_text("{}", encoding="utf-8")
    manifest = bundle.Manifest(
        spec=FeatureSpec(
            encoder="deep",
            weights_sha256="0" * 64,
            layers=layers,
            layer_pooling=LayerPooling.MEAN,
            quantization=Quantization.SIGN,
            order=Order.POOL_THEN_SIGN,
            dim=64,
        ),
        encoder=bundle.EncoderInfo("roberta", DEEP_LAYERS, 4, 128, 1, "fp16"),
        artifacts={path.name: bundle.Artifact.of(path) for path in written},
        versions={},
    )
    (folder / bundle.MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    return folder


@pytest.fixture
def own_deep_bundle(deep_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(deep_bundle, tmp_path / "deep"))


def parse(trt: Any, graph: Path) -> tuple[Any, ...]:
    """(network, and what must live as long)."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = tensorrt_module.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(graph))
    return network, parser, builder, logger


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def plan_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("plans/*"))


# What is built


@needs_rtx
def test_a_plan_says_what_it_is(own_bundle: Path, trt: Any) -> None:
    manifest = bundle.read_manifest(own_bundle)
    before = (own_bundle / bundle.MANIFEST).read_bytes()
    said: list[str] = []
    config = replace(RTX, capabilities=("12.0", "8.6"), workspace_gib=2.5)
    built = plan.build_plan(own_bundle, manifest, config, said.append)
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
    built = plan.build_plan(folder, bundle.read_manifest(folder), RTX)
    assert built is not None
    assert ("token_type_ids" in built.info.inputs) == (family == "bert")


@needs_rtx
def test_a_graph_in_fp32(build_bundle: Callable[..., Path], tmp_path: Path) -> None:
    source = build_bundle("distilbert", precision="fp32")
    folder = Path(shutil.copytree(source, tmp_path / "fp32"))
    built = plan.build_plan(folder, bundle.read_manifest(folder), RTX)
    assert built is not None
    assert set(built.info.outputs.values()) == {"float32"}
    assert built.info.precision == "fp32"


@needs_rtx
def test_sixteen_outputs(own_deep_bundle: Path) -> None:
    built = plan.build_plan(own_deep_bundle, bundle.read_manifest(own_deep_bundle), RTX)
    assert built is not None
    assert list(built.info.outputs) == [f"hidden_{i}" for i in range(1, 17)]


@needs_rtx
def test_the_defaults(own_bundle: Path) -> None:
    config = PlanConfig(flavour="tensorrt-rtx")
    built = plan.build_plan(own_bundle, bundle.read_manifest(own_bundle), config)
    assert built is not None
    assert built.info.profiles == default_profiles(64)
    assert built.info.compute_capabilities[0] == "8.0", "Turing only when asked for"
    assert "12.0" in built.info.compute_capabilities


@needs_rtx
def test_the_same_plan_is_replaced_and_another_is_added(own_bundle: Path) -> None:
    manifest = bundle.read_manifest(own_bundle)
    for _ in range(2):
        plan.build_plan(own_bundle, manifest, replace(RTX, capabilities=("8.9",)))
        assert len(plan_files(own_bundle)) == 2
    plan.build_plan(own_bundle, manifest, replace(RTX, capabilities=("8.6",)))
    assert len(plan_files(own_bundle)) == 4


@needs_rtx
def test_what_the_error_says_to_type_makes_the_plan(own_bundle: Path, trt: Any) -> None:
    sha256 = graph_sha256(bundle.read_manifest(own_bundle).artifacts)
    with pytest.raises(PlanError) as error:
        find_plan(own_bundle, sha256, "tensorrt-rtx", trt.__version__, "8.9")
    command = shlex.split(str(error.value).splitlines()[-1])
    assert command[:4] == ["Type:", "python", "-m", "bitheads", "plan"]
    assert plan.main([*command[4:], "--plan-profile", "1x1,4x16,8x32"]) == 0
    assert find_plan(own_bundle, sha256, "tensorrt-rtx", trt.__version__, "8.9").read_bytes()


# What TensorRT makes of the graph


@needs_rtx
def test_kernels_normalize_in_float32(deep_bundle: Path, trt: Any) -> None:
    """RTX 1.7 has no such setting; it lists its kernels, which cast before they sum.

    A residual sum, then the normalization, is ...AddCastMeanSubMulMeanAddSqrtDivMulCast...; where
    it is cut in two kernels, float32 passes between them. Attention is one kernel.
    """
    lines: list[str] = []

    class Logger(trt.ILogger):
        def log(self, severity: Any, message: str) -> None:
            lines.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    network = tensorrt_module.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(deep_bundle / bundle.GRAPH))
    plan.check_numerics(trt, network)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    tensorrt_module.target(trt, config, "tensorrt-rtx", ["8.9"])
    plan._add_profile(builder, config, ["input_ids", "attention_mask"], ONE_PROFILE[0])
    assert builder.build_serialized_network(network, config) is not None

    text = "\n".join(lines)
    kernels = re.findall(r"^Name: (\S+), LayerType: \w+, Inputs: (.*?), Outputs: (.*)", text, re.M)
    normalize = [kernel for kernel in kernels if "Mean" in kernel[0]]
    assert len(normalize) >= 2 * DEEP_LAYERS
    for name, _, outputs in normalize:
        assert "CastMeanSubMulMean" in name, name
        if name.split("_myl0")[0].endswith("Mean"):
            assert "Half" not in outputs.split("TacticName")[0], outputs
    assert sum("mha" in name for name, *_ in kernels) == DEEP_LAYERS
    assert not any("Soft" in name for name, *_ in kernels)


@needs_rtx
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_our_graphs_keep_their_precision(
    build_bundle: Callable[..., Path], trt: Any, precision: str
) -> None:
    folder = build_bundle("distilbert", precision=precision)
    network, *alive = parse(trt, folder / bundle.GRAPH)
    plan.check_numerics(trt, network)
    types = [layer.type for layer in plan._layers(network)]
    assert types.count(trt.LayerType.SOFTMAX) == 2
    assert types.count(trt.LayerType.NORMALIZATION) == 5
    assert alive


@needs_rtx
def test_a_softmax_in_float16_is_refused(
    tiny_encoder: Callable[[str], Path], tmp_path: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter's own graph, had it no casts."""
    from bitheads.export.encoder import load_encoder

    monkeypatch.setattr("bitheads.export.onnx_graph._softmax_in_fp32", lambda graph: None)
    encoder = load_encoder(str(tiny_encoder("distilbert")))
    export_graph(encoder, (1, 2), "fp16", tmp_path / "encoder.onnx")
    network, *_alive = parse(trt, tmp_path / "encoder.onnx")
    with pytest.raises(ExportError, match=r"got SOFTMAX of HALF, expected FLOAT") as error:
        plan.check_numerics(trt, network)
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
        plan.check_numerics(trt, network)


@needs_rtx
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_a_sum_in_float16_is_refused(tmp_path: Path, trt: Any, dtype: int) -> None:
    """As in a normalization written out in the graph, whose squares overflow."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[-1], keepdims=1)],
        "g",
        [helper.make_tensor_value_info("x", dtype, ["rows", 8])],
        [helper.make_tensor_value_info("y", dtype, ["rows", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    network, *_alive = parse(trt, save(model, tmp_path / "mean.onnx"))
    if dtype == TensorProto.FLOAT:
        plan.check_numerics(trt, network)
    else:
        with pytest.raises(ExportError, match="got REDUCE of HALF, expected FLOAT"):
            plan.check_numerics(trt, network)


@needs_rtx
def test_a_graph_that_would_lose_precision_makes_no_plan(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LARGEST_FLOAT16_CONSTANT", 1e3)
    with pytest.raises(ExportError, match="would lose precision"):
        plan.build_plan(own_bundle, bundle.read_manifest(own_bundle), RTX)
    assert plan_files(own_bundle) == []


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
        plan.build_plan(own_bundle, manifest, RTX)
    assert plan_files(own_bundle) == []


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
        plan.build_plan(own_bundle, bundle.read_manifest(own_bundle), RTX)


@needs_rtx
def test_a_graph_that_cannot_be_parsed(own_bundle: Path) -> None:
    (own_bundle / bundle.GRAPH).write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"tensorrt-rtx: cannot read .*encoder\.onnx: .+"):
        plan.build_plan(own_bundle, bundle.read_manifest(own_bundle), RTX)


# How a build ends


@needs_rtx
def test_what_tensorrt_says_is_wrong_is_in_the_error(own_bundle: Path) -> None:
    config = replace(RTX, workspace_gib=1e-5)
    with pytest.raises(ExportError, match=r"cannot build a plan: .*workspace.*--plan-workspace"):
        plan.build_plan(own_bundle, bundle.read_manifest(own_bundle), config)
    assert plan_files(own_bundle) == []


@needs_rtx
def test_ctrl_c_stops_a_build_and_leaves_nothing(own_deep_bundle: Path) -> None:
    command = [sys.executable, "-m", "bitheads", "plan", "--bundle", str(own_deep_bundle)]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "building for" in process.stderr.readline()
        time.sleep(1)  # it takes several
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopping TensorRT at its next step\ninterrupted: no plan was written\n"
    assert out == ""
    assert plan_files(own_deep_bundle) == []


@needs_rtx
def test_ctrl_c_leaves_the_old_plan(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = bundle.read_manifest(own_bundle)
    plan.build_plan(own_bundle, manifest, RTX)
    before = {path: path.read_bytes() for path in plan_files(own_bundle)}
    wait, calls = plan_progress._wait, []

    def interrupted(thread: Any, monitor: Any) -> None:
        calls.append(thread)
        if len(calls) == 1:
            raise KeyboardInterrupt
        wait(thread, monitor)

    monkeypatch.setattr(plan_progress, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plan.build_plan(own_bundle, manifest, RTX)
    assert not calls[0].is_alive()
    assert {path: path.read_bytes() for path in plan_files(own_bundle)} == before


@needs_rtx
def test_an_error_in_the_builders_thread_is_raised(trt: Any) -> None:
    class Broken:
        def build_serialized_network(self, *arguments: Any) -> None:
            raise MemoryError("too large")

    config = SimpleNamespace(progress_monitor=None)
    with pytest.raises(MemoryError, match="too large"):
        plan_progress.build_serialized(trt, Broken(), None, config)


@needs_rtx
def test_progress_is_shown_to_people(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = bundle.read_manifest(own_bundle)
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        plan.build_plan(own_bundle, manifest, RTX)
        shown = capsys.readouterr().err
        assert bool(re.search(r"plan: \d+ steps \[00:\d\d\], \w+", shown)) == terminal, shown


# Which flavour


def test_without_tensorrt_auto_makes_no_plan(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: None)
    said: list[str] = []
    assert plan.resolve_plan(PlanConfig(), said.append) == NO_PLAN
    assert said == ["no TensorRT here, so no plan. To build one: pip install 'bitheads[rtx]'"]
    manifest = bundle.read_manifest(tiny_bundle)
    assert plan.build_plan(tiny_bundle, manifest, PlanConfig()) is None
    assert plan_files(tiny_bundle) == []


@pytest.mark.parametrize(
    ("flavour", "message"),
    [
        ("tensorrt", r"needs the package 'tensorrt'.*pip install 'bitheads\[gpu\]', on a machine"),
        ("tensorrt-rtx", r"needs the package 'tensorrt_rtx'.*pip install 'bitheads\[rtx\]'"),
    ],
)
def test_a_flavour_that_is_absent_is_an_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flavour: str,
    message: str,
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=message):
        plan.resolve_plan(PlanConfig(flavour=flavour))
    monkeypatch.setattr(
        "bitheads.export.make_bundle.load_encoder", lambda name: pytest.fail("it began")
    )
    assert build.main(["--plan", flavour, "--output", str(tmp_path / "out")]) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("error", [ImportError("no libnvinfer"), OSError("no libnvinfer")])
def test_a_flavour_that_does_not_import_is_an_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorrt_module, "import_module", broken)
    with pytest.raises(ExportError, match=r"cannot be imported \(no libnvinfer\)\. Type: pip"):
        plan.resolve_plan(PlanConfig(flavour="tensorrt-rtx"))


@pytest.mark.parametrize(
    ("installed", "gpu", "expected"),
    [
        ({"tensorrt", "tensorrt_rtx"}, "9.0", "tensorrt"),
        ({"tensorrt", "tensorrt_rtx"}, None, "tensorrt-rtx"),
        ({"tensorrt"}, None, None),
        ({"tensorrt"}, "9.0", "tensorrt"),
        ({"tensorrt_rtx"}, "9.0", "tensorrt-rtx"),
    ],
)
def test_auto_takes_what_works(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], gpu: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: gpu)
    assert tensorrt_module.choose_flavour("auto", lambda message: None) == expected
    assert tensorrt_module.choose_flavour("none", lambda message: None) is None


def test_tensorrt_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: None)
    with pytest.raises(ExportError, match=r"found no GPU.*use --plan tensorrt-rtx"):
        tensorrt_module.choose_flavour("tensorrt", lambda message: None)


def test_the_capability_comes_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for libcuda, as there is no driver here."""
    values = {75: 9, 76: 0}

    def attribute(target: Any, which: int, device: Any) -> int:
        target._obj.value = values[which]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: 0,
        cuDeviceGet=lambda device, index: 0,
        cuDeviceGetAttribute=attribute,
    )
    monkeypatch.setattr(tensorrt_module.ctypes, "CDLL", lambda name: driver)
    assert tensorrt_module.gpu_capability() == "9.0"
    driver.cuInit = lambda flags: 100
    assert tensorrt_module.gpu_capability() is None, "CUDA_ERROR_NO_DEVICE"


def test_tensorrt_builds_for_the_gpu_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: "9.0")
    for wanted in ((), ("9.0",)):
        assert tensorrt_module.check_capabilities(None, "tensorrt", wanted) == ("9.0",)
    with pytest.raises(ExportError, match=r"got 8\.6, expected 9\.0"):
        tensorrt_module.check_capabilities(None, "tensorrt", ("8.6",))
    tensorrt_module.target(None, None, "tensorrt", ("9.0",))


@needs_rtx
def test_rtx_builds_for_what_it_lists(trt: Any) -> None:
    def check(*wanted: str) -> tuple[str, ...]:
        return tensorrt_module.check_capabilities(trt, "tensorrt-rtx", wanted)

    assert check("12.0", "8.6", "8.6") == ("8.6", "12.0")
    assert check("7.5") == ("7.5",)
    with pytest.raises(ExportError, match=r"got 9\.0, expected some of .*8\.6.* use --plan tensor"):
        check("8.6", "9.0")


@needs_rtx
def test_a_plan_that_is_not_for_the_gpu_at_hand_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of Hopper, which RTX does not build for."""
    for gpu, expected in ((None, 0), ("8.6", 0), ("9.0", 1)):
        monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda gpu=gpu: gpu)
        said: list[str] = []
        plan.resolve_plan(RTX, said.append)
        assert len(said) == expected


# TensorRT's own


def test_tensorrt_10_is_told_to_keep_types_and_11_knows_no_other() -> None:
    """Stand-ins: neither version can be installed without a GPU. 10 numbers the flag 1."""
    builder = SimpleNamespace(create_network=lambda flags: flags)
    trt_10 = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    assert tensorrt_module.create_network(trt_10, builder) == 2
    for trt_11 in (SimpleNamespace(), SimpleNamespace(NetworkDefinitionCreationFlag=object)):
        assert tensorrt_module.create_network(trt_11, builder) == 0


def test_tensorrt_10_is_told_to_normalize_in_float32() -> None:
    """A stand-in for a module whose layers have a type to compute in; RTX's have none."""

    class Layer:
        compute_precision = "float16"

    trt_10 = SimpleNamespace(INormalizationLayer=Layer, float32="float32")
    layer = Layer()
    tensorrt_module.normalize_in_fp32(trt_10, layer)
    assert layer.compute_precision == "float32"


class CacheConfig:
    """A stand-in for TensorRT's builder configuration: RTX's timing cache does nothing."""

    def __init__(self, sound: bool = True) -> None:
        self.data = b""
        self.sound = sound

    def create_timing_cache(self, data: bytes) -> Any:
        self.data = data
        return SimpleNamespace(serialize=lambda: bytearray(self.data + b"+"))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return self.sound


def test_timings_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    for expected in (b"+", b"++"):
        timings = tensorrt_module.use_timing_cache(CacheConfig(), path)
        plan._write_timings(path, timings())
        assert path.read_bytes() == expected
    with pytest.raises(ExportError, match="of another GPU, another TensorRT, or damaged"):
        tensorrt_module.use_timing_cache(CacheConfig(sound=False), path)
    with pytest.raises(ExportError, match="cannot be read"):
        tensorrt_module.use_timing_cache(CacheConfig(), tmp_path)
    with pytest.raises(ExportError, match="The plan was written"):
        plan._write_timings(path / "below a file", b"")


@needs_rtx
def test_rtx_has_no_timings_to_keep(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="measures no kernels"):
        plan.resolve_plan(replace(RTX, timing_cache=tmp_path / "timings"))


@needs_rtx
def test_tensorrt_takes_the_same_path(
    own_bundle: Path, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RTX stands in for TensorRT, which it shares its module's names with; a GPU is made up."""
    monkeypatch.setitem(tensorrt_module.MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: "9.0")
    config = replace(RTX, flavour="auto")
    built = plan.build_plan(own_bundle, bundle.read_manifest(own_bundle), config)
    assert built is not None
    assert built.path.name.endswith(f".tensorrt-{trt.__version__}.sm_90.plan")
    assert built.info.compute_capabilities == ("9.0",)


def test_a_builder_that_does_not_start_is_an_error() -> None:
    """A stand-in for TensorRT on a machine whose driver does not work: pybind11 says this."""

    class Builder:
        def __init__(self, logger: Any) -> None:
            logger.errors.append("CUDA initialization failure with error: 35.")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    logger = SimpleNamespace(errors=[])
    with pytest.raises(ExportError, match=r"does not start \(CUDA initialization failure"):
        plan._create_builder(SimpleNamespace(Builder=Builder), logger, "tensorrt")


# Options


@pytest.mark.parametrize("max_length", [5, 16, 32, 33, 64, 500, 512, 8192, 10_000])
def test_the_default_profiles_leave_no_gap(max_length: int) -> None:
    profiles = default_profiles(max_length)
    latency, *buckets = profiles
    assert latency == Profile((1, 1), (1, min(LATENCY_SEQ, max_length)), (1, max_length))
    assert [p.max[1] for p in buckets] == sorted({p.max[1] for p in buckets})
    assert buckets[-1].max[1] == max_length
    shortest = 1
    for index, bucket in enumerate(buckets, start=1):
        assert bucket.opt[0] * bucket.opt[1] >= MAX_TOKENS
        for seq in (shortest, bucket.max[1]):
            assert choose_profile(profiles, 1, seq) == 0, "a single text has its own"
            rows = max(2, MAX_TOKENS // max(seq, 16))
            assert choose_profile(profiles, rows, seq) == index, "chosen by length alone"
        shortest = bucket.max[1] + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flavour": "tensorrt_rtx"}, "--plan: got 'tensorrt_rtx', expected one of"),
        ({"capabilities": ("sm_86",)}, "got 'sm_86', expected a form like"),
        ({"capabilities": ("",)}, "got '', expected a form like"),
        ({"workspace_gib": 0}, "--plan-workspace: got 0, expected"),
        ({"workspace_gib": float("nan")}, "--plan-workspace: got nan, expected"),
        ({"flavour": "none", "capabilities": ("8.6",)}, "--plan none: got other"),
        ({"flavour": "none", "profiles": ONE_PROFILE}, "--plan none: got other"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        PlanConfig(**options)


@needs_rtx
def test_profiles_are_bound_by_the_encoder(own_bundle: Path) -> None:
    config = replace(RTX, profiles=(*ONE_PROFILE, Profile((1, 1), (1, 65), (1, 65))))
    with pytest.raises(ExportError, match="1x1,1x65,1x65: got 65 tokens, expected at most 64"):
        plan.build_plan(own_bundle, bundle.read_manifest(own_bundle), config)


@pytest.mark.parametrize("profile", ["", "8x32", "1x1,8x32", "1x1,8x32,4x32", "0x1,1x1,1x1", "axb"])
def test_profiles_that_cannot_be_parsed(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        plan.main(["--bundle", "b", "--plan-profile", profile])
    assert stop.value.code == 2
    assert "expected" in capsys.readouterr().err


@needs_rtx
def test_the_command_prints_the_metadata(
    own_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        *("--plan", "tensorrt-rtx", "--plan-capabilities", "8.6,8.9", "--plan-workspace", "4"),
        *("--plan-profile", "1x1,1x16,1x64", "--plan-profile", "1x1,8x64,16x64", "--json"),
    ]
    assert plan.main(["--bundle", str(own_bundle), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    path = Path(printed.pop("path"))
    assert path.is_file()
    assert printed == json.loads(path.with_suffix(".json").read_text())
    assert printed["compute_capabilities"] == ["8.6", "8.9"]
    assert printed["profiles"][1]["opt"] == [8, 64]
    assert printed["options"]["workspace_bytes"] == 4 << 30


def test_the_command_checks_the_bundle_first(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (own_bundle / bundle.GRAPH).open("ab") as file:
        file.write(b"x")
    assert plan.main(["--bundle", str(own_bundle)]) == 1
    assert "encoder.onnx was changed" in capsys.readouterr().err
    assert plan.main(["--bundle", str(tmp_path / "nothing")]) == 1
    assert "no bundle.json there" in capsys.readouterr().err


def test_the_command_that_built_nothing_failed(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: None)
    assert plan.main(["--bundle", str(own_bundle)]) == 1
    shown = capsys.readouterr().err
    assert "pip install 'bitheads[rtx]'" in shown
    assert "error: no plan was built" in shown


@needs_rtx
def test_a_build_puts_the_plan_into_the_bundle(
    tiny_encoder: Callable[[str], Path], few_texts: Path, traced_once: None, tmp_path: Path
) -> None:
    arguments = [
        *("--encoder", str(tiny_encoder("bert")), "--calibration", str(few_texts)),
        *("--output", str(tmp_path / "out"), "--plan-profile", "1x1,4x16,8x32"),
    ]
    assert build.main([*arguments, "--plan", "tensorrt-rtx"]) == 0
    assert [path.suffix for path in plan_files(tmp_path)] == [".json", ".plan"]
    manifest = bundle.read_manifest(tmp_path / "out")
    assert not any("plan" in name for name in manifest.artifacts)
    too_long = [*arguments, "--plan-profile", "1x1,1x65,1x65", "--force"]
    assert build.main(too_long) == 1
    assert len(plan_files(tmp_path)) == 2, "the old bundle stands"


def test_help_says_when_to_change_an_option() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bitheads", "plan", "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--bundle", "--plan-capabilities", "--plan-profile", "--timing-cache", "--json"):
        assert option in done.stdout
