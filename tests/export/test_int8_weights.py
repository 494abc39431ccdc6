"""Weights in int8: what is rounded, how far, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13
from tiny_encoders import num_layers

from bitheads.engine.bundle import (
    GRAPH,
    INT8_DYNAMIC_GRAPH,
    INT8_DYNAMIC_WEIGHTS,
    INT8_GROUP,
    Artifact,
    read_manifest,
    verify,
)
from bitheads.export import int8_weights
from bitheads.export.config import MIN_SIGN_AGREEMENT
from bitheads.export.errors import ExportError
from bitheads.export.int8_weights import LEVELS, quantize_weights, round_weights

BuildBundle = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(build_bundle: BuildBundle) -> Path:
    return build_bundle("bert", precision="int8_dynamic")


def test_it_is_one_more_artifact(folder: Path, tiny_bundle: Path) -> None:
    manifest, plain = read_manifest(folder), read_manifest(tiny_bundle)
    added = {*manifest.artifacts} - {*plain.artifacts}
    assert added == {INT8_DYNAMIC_GRAPH, INT8_DYNAMIC_WEIGHTS}
    assert manifest.artifacts[GRAPH] == plain.artifacts[GRAPH]
    assert (manifest.encoder, manifest.spec.id) == (plain.encoder, plain.spec.id)
    assert (manifest.quantized, plain.quantized) == (["int8_dynamic"], [])
    assert "openvino" in manifest.versions
    verify(folder, manifest)


def test_its_agreement_is_measured(folder: Path, tiny_bundle: Path) -> None:
    manifest = read_manifest(folder)
    exact = manifest.sign_agreement("openvino", "fp32")
    found = manifest.sign_agreement("openvino", "int8_dynamic")
    assert found is not None
    assert exact is not None
    assert MIN_SIGN_AGREEMENT["int8_dynamic"] <= found < exact
    assert read_manifest(tiny_bundle).sign_agreement("openvino", "int8_dynamic") is None


def test_products_with_weights_are_bytes_and_no_others(folder: Path) -> None:
    model, plain = (
        openvino.Core().read_model(folder / name) for name in (INT8_DYNAMIC_GRAPH, GRAPH)
    )
    kinds = Counter(
        node.get_element_type().to_string()
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_friendly_name().endswith("/rounded")
    )
    assert kinds == {"u8": 6 * num_layers("bert")}
    products, expected = (
        [
            node.get_friendly_name()
            for node in m.get_ordered_ops()
            if node.get_type_name() == "MatMul"
        ]
        for m in (model, plain)
    )
    assert sorted(products) == sorted(expected)
    ports, expected_ports = (
        [
            (port.get_any_name(), port.get_partial_shape(), port.get_element_type())
            for port in (*m.inputs, *m.outputs)
        ]
        for m in (model, plain)
    )
    assert ports == expected_ports


def test_the_same_graph_is_the_same_files(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    for path in quantize_weights(folder / GRAPH, tmp_path):
        if path.suffix == ".bin":
            assert Artifact.of(path) == manifest.artifacts[path.name]
        assert str(folder.parent) not in path.read_bytes().decode("latin-1")


@pytest.mark.parametrize("step_type", [np.float16, np.float32])
@pytest.mark.parametrize("inputs", [3, 2 * INT8_GROUP, INT8_GROUP + 1])
def test_a_weight_is_within_half_a_step(step_type: Any, inputs: int) -> None:
    rng = np.random.default_rng(inputs)
    weights = rng.standard_normal((5, inputs)).astype(np.float32) * np.float32(0.02)
    weights[0] = 0
    weights[1] = np.abs(weights[1])
    weights[2] -= 3  # all far from zero: zero is among the levels, and so is every weight
    rounded, zero_points, steps = round_weights(weights, step_type)
    groups = 2 if inputs == 2 * INT8_GROUP else 1
    assert rounded.shape == (5, groups, inputs // groups)
    assert zero_points.shape == steps.shape == (5, groups, 1)
    assert (rounded.dtype, zero_points.dtype, steps.dtype) == (np.uint8, np.uint8, step_type)
    wide = steps.astype(np.float64)
    got = (rounded.astype(np.float64) - zero_points) * wide
    # A zero point is rounded, too, so that the last level may be half a step away.
    assert (np.abs(got - weights.reshape(got.shape)) <= wide * 1.001).all()
    assert np.abs(got - weights.reshape(got.shape)).mean() < 0.3 * wide.mean()
    least, largest = np.minimum(weights, 0).min(1), np.maximum(weights, 0).max(1)
    assert (wide.max(axis=(1, 2)) <= np.maximum(1.01 * (largest - least) / LEVELS, 2e-7)).all()
    assert not got[0].any()


def test_a_graph_without_weights_is_refused(tmp_path: Path) -> None:
    parameters = [opset13.parameter([2, 2], np.float32) for _ in range(2)]
    model = openvino.Model([opset13.matmul(*parameters, False, False)], parameters, "no weights")
    openvino.save_model(model, tmp_path / "graph.xml")
    with pytest.raises(ExportError, match=r"no product of graph\.xml has constant weights"):
        quantize_weights(tmp_path / "graph.xml", tmp_path)


def test_without_openvino_it_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_weights, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"needs the package 'openvino'\. Type: pip install"):
        quantize_weights(tmp_path / GRAPH, tmp_path)
