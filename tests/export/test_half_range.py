"""Encoders whose numbers leave float16, in float16 arithmetic as ONNX's own reference does it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from marks import all_but_long, long
from odd_encoders import edit_weights, share_of_all_signs
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from transformers import AutoConfig, AutoTokenizer

from benchmarks.inputs.model_types import TYPES, auto_class, save_encoder
from bitheads.engine.bundle import GRAPH, TOKENIZER, read_manifest
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import TokenBatch
from bitheads.export import make_bundle as building
from bitheads.export import onnx_graph
from bitheads.export.comparison.compared_texts import run_reference
from bitheads.export.comparison.reference_model import ReferenceModel
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.half_range import keep_in_range, largest, look, where_lost
from bitheads.export.make_bundle import make_bundle
from bitheads.export.source.encoder import load_encoder

BuildBundle = Callable[..., Path]
Weights = dict[str, torch.Tensor]
TEXTS = ["a", "a line of plain words", "some are longer than others, and some of them are not"]
LAYERS = (1, 2)
SIGNS = 0.997
FEW = [3, 40]
"""Features with massive activations."""


def _t5_feed_forward(weights: Weights) -> None:
    """As in T5, whose feed-forward layers give most of what leaves float16."""
    weights["encoder.block.0.layer.1.DenseReluDense.wo.weight"] *= 5e3
    weights["encoder.block.0.layer.1.DenseReluDense.wo.weight"][FEW] *= 20


def _gemma_embeddings(weights: Weights) -> None:
    """As in Gemma, whose embeddings grow by sqrt(dim), and whose norms multiply."""
    weights["embed_tokens.weight"][:, FEW] *= 2e5
    for name, values in weights.items():
        if name.endswith("post_feedforward_layernorm.weight"):
            values += 300


def _qwen_features(weights: Weights) -> None:
    """As in Qwen: one layer writes some features that stay to the end."""
    weights["layers.0.mlp.down_proj.weight"][FEW] *= 2e4
    weights["layers.0.mlp.up_proj.weight"] *= 20


def _qwen_weights(weights: Weights) -> None:
    """Weights that are infinite in float16."""
    weights["layers.1.mlp.down_proj.weight"][FEW] *= 1e5 / 0.1
    weights["layers.1.mlp.up_proj.weight"] *= 1e-2


def _bert_values(weights: Weights) -> None:
    """Of a model that gets what is added to its scores, so that there is no mask beyond float16."""
    weights["encoder.layer.0.output.dense.weight"][FEW] *= 1e5


OVERFLOWING: Mapping[str, tuple[str, Callable[[Weights], None], str]] = {
    "t5": ("t5", _t5_feed_forward, "encoder.block.0.layer.1.DenseReluDense.wo"),
    "gemma": ("gemma3_text", _gemma_embeddings, "embed_tokens"),
    "qwen": ("qwen3", _qwen_features, "layers.0.mlp.down_proj"),
    "weights": ("qwen3", _qwen_weights, "layers.1.mlp.down_proj"),
    "bert": ("bert", _bert_values, "encoder.layer.0.output.dense"),
}


@pytest.mark.parametrize("name", all_but_long(OVERFLOWING, "bert"))
def test_what_leaves_float16_stays_in_float32(
    name: str,
    few_texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    traced_once: None,
) -> None:
    model_type, change, module = OVERFLOWING[name]
    source = save_encoder(model_type, TYPES[model_type], tmp_path / "source")
    edit_weights(source, change)
    before = tmp_path / "before.onnx"
    if name == "bert":  # a graph in two files
        monkeypatch.setattr(onnx_graph, "MAX_SINGLE_FILE_BYTES", 10_000)
    building.export_graph(load_encoder(str(source)), LAYERS, "fp16", before)
    assert _share_of_signs(before, source) < SIGNS, "nothing is wrong in float16"

    said: list[str] = []
    output = tmp_path / "bundle"
    # bfloat16 rounds coarsely, and random weights are hard on it; float16 is looked at below.
    make_bundle(_config(source, output, few_texts, min_sign_agreement=0.99), said.append)
    assert _share_of_signs(output / GRAPH, source) >= SIGNS
    assert share_of_all_signs(source, output, TEXTS) >= SIGNS
    manifest = read_manifest(output)
    assert (f"{GRAPH}.data" in manifest.artifacts) == (name == "bert")
    report = manifest.parity["float16"]
    assert next(iter(report["beyond"])) == module
    # Gemma's are looked up, not multiplied.
    assert report["float32_products"] == [module] * (name != "gemma")
    assert max(report["beyond"].values()) > 6e4 > report["largest"]
    assert [line for line in said if f"float16 arithmetic: no room for {module} (up to" in line]


@pytest.mark.long
def test_limits_of_float16_are_none_in_the_graph(few_texts: Path, tmp_path: Path) -> None:
    """T5 cuts off at the largest float16, where half is traced."""
    source = save_encoder("t5", TYPES["t5"], tmp_path / "source")
    output = tmp_path / "bundle"
    make_bundle(_config(source, output, few_texts, min_sign_agreement=0.99))
    assert _share_of_signs(output / GRAPH, source) >= 0.999
    graph = onnx.load(output / GRAPH).graph
    halves = [one for one in graph.initializer if one.data_type == TensorProto.FLOAT16]
    assert max(np.abs(numpy_helper.to_array(one)).max() for one in halves) < 100
    report = read_manifest(output).parity["float16"]
    assert (report["beyond"], report["float32_products"]) == ({}, [])


@pytest.mark.parametrize("model_type", long("qwen3", "modernbert"))
def test_masks_are_no_reason_for_another_graph(
    model_type: str, few_texts: Path, tmp_path: Path
) -> None:
    """The lowest float16, with which transformers masks, is -inf once a score is added."""
    source = save_encoder(model_type, TYPES[model_type], tmp_path / "source")
    output = tmp_path / "bundle"
    make_bundle(_config(source, output, few_texts, min_sign_agreement=0.99))
    assert _share_of_signs(output / GRAPH, source) >= SIGNS
    graph = onnx.load(output / GRAPH).graph
    halves = [one for one in graph.initializer if one.data_type == TensorProto.FLOAT16]
    assert max(np.abs(numpy_helper.to_array(one)).max() for one in halves) <= 1e4
    assert "beyond" not in read_manifest(output).parity["float16"]


def test_a_graph_that_fits_stays_as_it_is(
    tiny_encoder: Callable[[str], Path], few_texts: Path, tmp_path: Path, traced_once: None
) -> None:
    source = tiny_encoder("roberta")
    before = tmp_path / "before.onnx"
    building.export_graph(load_encoder(str(source)), LAYERS, "fp16", before)
    output = tmp_path / "bundle"
    said: list[str] = []
    make_bundle(_config(source, output, few_texts), said.append)
    assert (output / GRAPH).read_bytes() == before.read_bytes()
    report = read_manifest(output).parity["float16"]
    assert 1 < report["largest"] <= 1e4 + 100, "it is the mask, with a score"
    assert report["sign_agreement"] > SIGNS
    assert report["tokens"] > 100
    assert not [line for line in said if "float16 arithmetic" in line]
    make_bundle(_config(source, tmp_path / "fp32", few_texts, precision="fp32"))
    assert "float16" not in read_manifest(tmp_path / "fp32").parity


def test_what_float16_cannot_do_is_refused(
    tiny_encoder: Callable[[str], Path], few_texts: Path, tmp_path: Path
) -> None:
    """Small numbers beside large ones that cancel out."""
    source = Path(shutil.copytree(tiny_encoder("roberta"), tmp_path / "source"))

    def cancel(weights: Weights) -> None:
        for name, values in weights.items():
            if name.endswith("intermediate.dense.bias"):
                values += 1000
            elif name.endswith("output.dense.weight"):
                values -= values.mean(1, keepdim=True)

    edit_weights(source, cancel)
    with pytest.raises(ExportError, match="does not match its source in float16 arithmetic") as e:
        make_bundle(_config(source, tmp_path / "bundle", few_texts))
    assert "Use --precision fp32" in str(e.value)
    assert not (tmp_path / "bundle").exists()


def test_what_float32_cannot_hold_is_refused(
    tiny_encoder: Callable[[str], Path], few_texts: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_encoder("roberta"), tmp_path / "source"))

    def beyond(weights: Weights) -> None:
        weights["encoder.layer.0.output.dense.weight"] *= 1e38

    edit_weights(source, beyond)
    with pytest.raises(ExportError, match="computes NaN or infinity"):
        make_bundle(_config(source, tmp_path / "bundle", few_texts))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_largest_magnitude(dtype: type[np.floating[Any]]) -> None:
    values = np.array([[1.5, -3, 0], [-0.0, 2, 1]], dtype)
    assert largest(values) == largest(values.T) == 3
    assert largest(values[:, 2:]) == 1
    assert largest(values[:0]) == 0
    assert largest(np.array(-7, dtype)) == 7
    assert largest(np.array([1, -np.inf], dtype)) == np.inf
    assert np.isnan(largest(np.array([np.inf, -np.nan, 1], dtype)))


def test_the_first_number_that_is_lost_has_a_place() -> None:
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["small"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["small", "small"], ["large"]),
        helper.make_node("Sub", ["large", "large"], ["hidden_1"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "seq"])],
        [helper.make_tensor_value_info("hidden_1", TensorProto.FLOAT16, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    modules = {"small": "embeddings", "large": "layer.0", "hidden_1": "layer.1"}
    for number, expected in ((255, None), (257, "layer.0")):
        ids = np.array([[number, 1]])
        found = look(model, TokenBatch(ids, ids, ids, np.array([2])), np.float16)
        assert where_lost(found, modules) == expected


def test_a_graph_that_the_reference_cannot_compute_stays_as_it_is(
    build_bundle: BuildBundle, tiny_encoder: Callable[[str], Path], few_texts: Path, tmp_path: Path
) -> None:
    model = onnx.load(build_bundle("distilbert") / GRAPH)
    model.graph.node[-1].domain = "of.somebody"
    path = tmp_path / GRAPH
    onnx.save(model, path)
    encoder = load_encoder(str(tiny_encoder("distilbert")))
    tokenizer = TextTokenizer(build_bundle("distilbert") / TOKENIZER, 16, encoder.vocabulary, None)
    texts = run_reference(
        ReferenceModel(str(tiny_encoder("distilbert")), 16), tokenizer, {"a": "text"}, LAYERS, 0
    )
    said: list[str] = []
    config = _config(tiny_encoder("distilbert"), tmp_path / "bundle", few_texts)
    found = keep_in_range([path], encoder, LAYERS, [texts], None, config, said.append)
    assert found == ([path], {})
    assert "float16 arithmetic is not looked at" in said[0]


def _config(source: Path, output: Path, few_texts: Path, **options: Any) -> BuildConfig:
    return BuildConfig(
        encoder=str(source), calibration=few_texts, output=output, layers="1-2", **options
    )


def _share_of_signs(graph: Path, source: Path) -> float:
    """Of the mean of the layers, as ONNX's reference computes the graph, as in transformers."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    kind = auto_class(type(AutoConfig.from_pretrained(source)))
    model = kind.from_pretrained(source, dtype=torch.float32).eval()
    evaluator = ReferenceEvaluator(onnx.load(graph))
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**tokens, output_hidden_states=True).hidden_states
    expected = torch.stack([hidden[layer] for layer in LAYERS]).mean(0).numpy()
    feeds = {name: tokens[name].numpy() for name in evaluator.input_names}
    with np.errstate(all="ignore"):
        got = np.mean([states.astype(np.float32) for states in evaluator.run(None, feeds)], axis=0)
    is_real = tokens["attention_mask"].numpy() == 1
    return float(((got > 0) == (expected > 0))[is_real].mean())
