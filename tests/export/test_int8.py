"""The graph in int8: what is quantized, how close it stays, and that NNCF keeps quiet."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino
import pytest
from marks import all_but_long
from tiny_encoders import ATTENTION_HEADS, DIM, FAMILIES, num_layers

from bitheads.engine.bundle import GRAPH, INT8_GRAPH, INT8_WEIGHTS, read_manifest, verify
from bitheads.engine.features.spec import Quantization
from bitheads.export import int8
from bitheads.export.build import main
from bitheads.export.config import MIN_SIGN_AGREEMENT, BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle

ROOT = Path(__file__).parents[2]
BuildBundle = Callable[..., Path]


@pytest.fixture(scope="module", params=all_but_long(FAMILIES, "bert"))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(build_bundle: BuildBundle, family: str) -> Path:
    return build_bundle(family, precision="int8")


def test_it_is_one_more_artifact(folder: Path, family: str, build_bundle: BuildBundle) -> None:
    """The int8 graph is beside the fp16 one, which a bundle without int8 has, too."""
    manifest, plain = read_manifest(folder), read_manifest(build_bundle(family))
    assert {*manifest.artifacts} - {*plain.artifacts} == {INT8_GRAPH, INT8_WEIGHTS}
    assert manifest.artifacts[GRAPH] == plain.artifacts[GRAPH]
    assert manifest.encoder == plain.encoder
    assert manifest.spec.id == plain.spec.id
    assert manifest.quantized == ["int8"]
    assert plain.quantized == []
    assert {"nncf", "openvino"} <= {*manifest.versions}
    verify(folder, manifest)


def test_its_parity_is_reported(folder: Path) -> None:
    sessions = read_manifest(folder).parity["sessions"]
    assert MIN_SIGN_AGREEMENT["int8"] <= sessions["openvino int8"]["pooled"]["sign_agreement"] < 1
    exact = sessions["openvino fp32"]["pooled"]["sign_agreement"]
    assert sessions["openvino int8"]["pooled"]["sign_agreement"] < exact
    assert {*sessions["openvino int8"]["layers"]} == {*sessions["openvino fp32"]["layers"]}


def test_products_with_weights_are_int8_and_no_others(folder: Path, family: str) -> None:
    """What reads a FakeQuantize is computed in int8: six products per layer, no attention."""
    layers = num_layers(family)
    model = openvino.Core().read_model(folder / INT8_GRAPH)
    quantized, plain = [], []
    for node in model.get_ops():
        if node.get_type_name() == "MatMul":
            source = node.input_value(0).get_node().get_type_name()
            (quantized if source == "FakeQuantize" else plain).append(node)
    assert len(quantized) == 6 * layers
    assert len(plain) == 2 * layers
    constants = Counter(
        node.get_element_type().to_string()
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
        and len(node.get_output_shape(0)) == 2
        and DIM in node.get_output_shape(0)
    )
    assert constants["i8"] == 6 * layers
    assert ATTENTION_HEADS not in [node.get_output_partial_shape(0).rank for node in quantized]


def test_its_ports_are_those_of_the_graph(folder: Path) -> None:
    models = [openvino.Core().read_model(folder / name) for name in (GRAPH, INT8_GRAPH)]
    graph, quantized = (
        [
            (port.get_any_name(), port.get_partial_shape(), port.get_element_type())
            for port in (*model.inputs, *model.outputs)
        ]
        for model in models
    )
    assert graph == quantized


def test_it_names_nothing_of_the_machine(folder: Path) -> None:
    text = (folder / INT8_GRAPH).read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert str(folder.parent) not in text
    assert str(Path.home()) + "/" not in text


def test_the_same_build_is_the_same_file(
    build_bundle: BuildBundle, tiny_encoder: Any, few_texts: Path, traced_once: None, tmp_path: Path
) -> None:
    again = make_bundle(
        BuildConfig(
            encoder=str(tiny_encoder("bert")),
            calibration=few_texts,
            precision="int8",
            output=tmp_path / "again",
        )
    )
    first = read_manifest(build_bundle("bert", precision="int8"))
    assert again.artifacts[INT8_WEIGHTS] == first.artifacts[INT8_WEIGHTS]


@pytest.mark.parametrize("quantization", [Quantization.UINT8, Quantization.FLOAT16])
def test_other_codes_are_held_to_their_error(
    build_bundle: BuildBundle, quantization: Quantization
) -> None:
    folder = build_bundle("bert", precision="int8", quantization=quantization)
    pooled = read_manifest(folder).parity["sessions"]["openvino int8"]["pooled"]
    assert 0.001 < pooled["relative_error"] < 0.12


@pytest.fixture
def arguments(tiny_encoder: Any, few_texts: Path, traced_once: None, tmp_path: Path) -> list[str]:
    return [
        *("--encoder", str(tiny_encoder("bert")), "--calibration", str(few_texts)),
        *("--precision", "int8", "--output", str(tmp_path / "out" / "bundle")),
    ]


def test_the_command_prints_its_own_lines_only(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    assert "openvino int8" in json.loads(shown.out)["parity"]["sessions"]
    assert all(line.startswith("[") for line in shown.err.splitlines())
    assert "quantizing to int8 on" in shown.err
    assert "openvino int8: 9" in shown.err


def test_without_nncf_it_says_what_to_type(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It is said before torch is started, let alone the export."""
    monkeypatch.setattr(int8, "find_spec", lambda name: None)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error == (
        "error: --precision int8 needs the package 'nncf'. Type: pip install 'bitheads[int8]'\n"
    )
    with pytest.raises(ExportError, match="needs the package 'nncf'"):
        make_bundle(BuildConfig(precision="int8", output=tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nncf

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nncf, "quantize", interrupt)
    assert main(arguments) == 130
    assert list((tmp_path / "out").iterdir()) == []


def test_what_nncf_refuses_is_one_line(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import nncf

    def refuse(*arguments: Any, **options: Any) -> None:
        raise nncf.ValidationError("no such node")

    monkeypatch.setattr(nncf, "quantize", refuse)
    assert main(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --precision int8: NNCF cannot quantize encoder.onnx (no such")
    assert list((tmp_path / "out").iterdir()) == []


def test_too_few_signs_fail_the_build(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MIN_SIGN_AGREEMENT, "int8", 0.9999)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "openvino int8: 9" in error
    assert "expected at least 99.99%" in error
    assert "for int8: int8_dynamic or fp16;" in error
    assert "more --calibration texts" in error


def test_progress_is_said_when_a_pass_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "SAY_EVERY_S", -1.0)
    said: list[str] = []
    batches = int8._Batches([None, None], [], said.append)  # type: ignore[list-item]
    assert [*batches] == [{}, {}] == [*batches]
    assert said == [
        *("int8: pass 1, 0 of 2 batches", "int8: pass 1, 1 of 2 batches"),
        *("int8: pass 2, 0 of 2 batches", "int8: pass 2, 1 of 2 batches"),
    ]


def test_nncf_calls_nobody_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """NNCF runs in a process of its own: it has no telemetry where pytest is."""
    program = """
import logging, socket, sys
def refuse(*arguments, **options):
    print("called", arguments, flush=True)
    raise OSError
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from bitheads.export.int8 import _import_nncf
nncf = _import_nncf()
from nncf.telemetry import telemetry
assert "openvino_telemetry" not in sys.modules
print(type(telemetry).__name__, logging.getLoggerClass().__name__)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    telemetry, logger_class = done.stdout.split()
    assert telemetry != "NNCFTelemetry"
    assert logger_class == "Logger"
    assert list(tmp_path.iterdir()) == []


def test_the_logger_class_of_others_is_kept() -> None:
    int8._import_nncf()
    assert logging.getLoggerClass() is logging.Logger
