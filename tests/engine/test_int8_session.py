"""int8, where it is asked for: on OpenVINO, of bundles that have it, with the same feature spec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_head
from test_encode import texts_of_all_lengths

from bitheads import BackendError, BundleError, Engine
from bitheads.engine.bundle import INT8_GRAPH, INT8_WEIGHTS, MANIFEST, read_manifest
from bitheads.engine.commands import predict
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.sessions import DEVICE_BACKENDS
from bitheads.engine.sessions import openvino as openvino_session
from bitheads.engine.sessions.compiled_graphs import BLOCK_BYTES

MAX_CHANGED_BY_BATCH = 0.002
"""Share of bits that may depend on the other texts of a batch; no bit was seen to."""


@pytest.fixture(scope="module")
def int8_bundle(build_bundle: Callable[..., Path]) -> Path:
    """Not to be written to."""
    return build_bundle("bert", precision="int8")


@pytest.fixture
def own_int8_bundle(int8_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))


def codes_of(folder: Path, precision: str, **options: Any) -> Any:
    with Engine.load(folder, "openvino", precision=precision) as engine:
        return engine.encode(texts_of_all_lengths(), **options).codes


def different(codes: Any, others: Any) -> float:
    return float(np.unpackbits(codes ^ others).mean())


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_it_is_what_was_asked_for(int8_bundle: Path, backend: str) -> None:
    with Engine.load(int8_bundle, backend, precision="int8") as engine:
        assert engine.backend == "openvino int8"


def test_auto_never_is_int8(int8_bundle: Path, tiny_bundle: Path) -> None:
    for backend in ("auto", "openvino", "onnxruntime"):
        with Engine.load(int8_bundle, backend) as engine, Engine.load(tiny_bundle, backend) as old:
            assert engine.backend == old.backend != "openvino int8"
            texts = texts_of_all_lengths()[:10]
            assert (engine.encode(texts).codes == old.encode(texts).codes).all()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta"])
def test_codes_are_close_to_those_in_fp32(build_bundle: Callable[..., Path], family: str) -> None:
    folder = build_bundle(family, precision="int8")
    assert 0 < different(codes_of(folder, "int8"), codes_of(folder, "fp32")) < 0.05


def test_heads_of_fp32_codes_fit(own_int8_bundle: Path) -> None:
    spec = read_manifest(own_int8_bundle).spec
    write_head(random_head(spec, "task"), own_int8_bundle / "heads" / "task.safetensors")
    texts = texts_of_all_lengths()
    got, expected = (
        Engine.load(own_int8_bundle, "openvino", precision=precision).predict(texts)["task"]
        for precision in ("int8", "fp32")
    )
    assert np.abs(got.probabilities - expected.probabilities).mean() < 0.05


def test_a_text_alone_and_in_a_batch(int8_bundle: Path) -> None:
    """Ranges of activations are constants of the graph, so a batch has no say in them."""
    texts = texts_of_all_lengths()
    with Engine.load(int8_bundle, precision="int8") as engine:
        together = engine.encode(texts).codes
        alone = np.concatenate([engine.encode([text]).codes for text in texts])
        small = engine.encode(texts, max_batch_tokens=100).codes
    assert different(alone, together) <= MAX_CHANGED_BY_BATCH
    assert different(small, together) <= MAX_CHANGED_BY_BATCH


def test_it_runs_without_bf16(int8_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = codes_of(int8_bundle, "int8")
    monkeypatch.setattr(openvino_session, "has_bf16", lambda: False)
    assert different(codes_of(int8_bundle, "int8"), usual) < 0.02


def test_a_bundle_without_it_says_how_to_make_it(tiny_bundle: Path) -> None:
    encoder = read_manifest(tiny_bundle).spec.encoder
    with pytest.raises(BackendError) as error:
        Engine.load(tiny_bundle, precision="int8")
    assert "has no encoder_int8.xml" in str(error.value)
    assert str(error.value).endswith(
        f"bitheads build --precision int8 --encoder {encoder} --output {tiny_bundle} --force"
    )


def test_onnxruntime_has_no_int8(int8_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"got 'int8', but onnxruntime .* backend='openvino'"):
        Engine.load(int8_bundle, "onnxruntime", precision="int8")


@pytest.mark.parametrize("backend", DEVICE_BACKENDS)
def test_gpus_have_another_int8(int8_bundle: Path, backend: str) -> None:
    """A graph of their own, which TensorRT alone runs."""
    message = "has no encoder.int8.onnx.*bitheads build --plan-precision int8"
    if backend != "tensorrt":
        message = r"runs the bundle's own graph alone\. Pass backend='tensorrt' .*'openvino'"
    with pytest.raises(BackendError, match=message):
        Engine.load(int8_bundle, backend, precision="int8")


def test_auto_without_openvino_says_what_to_type(
    int8_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitheads.engine.sessions.is_installed", lambda name: name == "onnxruntime")
    with pytest.raises(BackendError, match=r"backend 'openvino' needs .* Type: pip install"):
        Engine.load(int8_bundle, precision="int8")


@pytest.mark.parametrize("name", [INT8_GRAPH, INT8_WEIGHTS])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_changed_file_is_found(own_int8_bundle: Path, name: str, precision: str) -> None:
    data = bytearray((own_int8_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (own_int8_bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        Engine.load(own_int8_bundle, precision=precision)
    (own_int8_bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Engine.load(own_int8_bundle, precision=precision)


def test_a_broken_file_that_nobody_checked(own_int8_bundle: Path) -> None:
    (own_int8_bundle / INT8_GRAPH).write_text("<net")
    with pytest.raises(BackendError, match=r"openvino cannot load .*encoder_int8\.xml"):
        Engine.load(own_int8_bundle, precision="int8", verify=False)


def test_the_format_is_that_of_bundles_without_it(int8_bundle: Path, tiny_bundle: Path) -> None:
    new, old = (
        json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for folder in (int8_bundle, tiny_bundle)
    )
    assert new["format_version"] == old["format_version"] == 1
    assert {*new} == {*old}
    assert new["encoder"] == old["encoder"]


def test_compiled_graphs_are_kept_apart(
    own_int8_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {precision: codes_of(own_int8_bundle, precision) for precision in ("fp32", "int8")}
    cache = tmp_path / "cache"
    monkeypatch.setenv("BITHEADS_CACHE", str(cache))
    for _ in range(2):
        for precision, codes in plain.items():
            assert (codes_of(own_int8_bundle, precision) == codes).all()
    kept = [json.loads(path.read_bytes()[:BLOCK_BYTES]) for path in cache.rglob("*.compiled")]
    assert len({content["graph_sha256"] for content in kept}) == len(kept) == 2


def test_the_command_takes_it(own_int8_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = read_manifest(own_int8_bundle).spec
    write_head(random_head(spec, "tone"), own_int8_bundle / "heads" / "tone.safetensors")
    arguments = ["--bundle", str(own_int8_bundle), "--demo", "--precision", "int8"]
    assert predict.main(arguments) == 0
    assert "openvino int8" in capsys.readouterr().out
