"""Every encoder family, in both precisions: the graph is the model, whatever is fed to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from tiny_encoders import DIM, FAMILIES, MAX_LENGTH, corpus
from transformers import AutoModel, AutoTokenizer

from bitheads.engine.batching import pad_batch
from bitheads.engine.bundle import GRAPH, TOKENIZER, read_manifest
from bitheads.engine.sessions import BACKENDS, EncoderSession, open_session
from bitheads.engine.texts.tokenize import TextTokenizer, Tokens
from bitheads.engine.types import TokenBatch
from bitheads.export.comparison.parity import available_sessions

GRAPH_TYPES = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT}
TOLERANCE = {"fp16": 0.02, "fp32": 1e-4}
"""Largest difference of hidden states, which are of size 1; in fp16 the weights are rounded."""


@pytest.fixture(scope="module", params=["fp16", "fp32"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(build_bundle: Callable[..., Path], family: str, precision: str) -> Path:
    return build_bundle(family, precision=precision)


@cache
def open_fp32(folder: Path, backend: str) -> EncoderSession:
    return open_session(folder / GRAPH, read_manifest(folder).output_names, backend, "fp32")


def run(folder: Path, backend: str, batch: TokenBatch) -> list[NDArray[np.float32]]:
    return [hidden.astype(np.float32) for hidden in open_fp32(folder, backend).run(batch)]


def tokenize(folder: Path, texts: list[Any]) -> list[Tokens]:
    return TextTokenizer(folder / TOKENIZER, MAX_LENGTH)(texts)


def test_every_session_passes_parity(folder: Path, precision: str) -> None:
    sessions = read_manifest(folder).parity["sessions"]
    assert set(sessions) == {" ".join(session) for session in available_sessions()}
    for name in ("openvino fp32", "onnxruntime fp32"):
        pooled = sessions[name]["pooled"]
        assert pooled["sign_agreement"] >= {"fp16": 0.999, "fp32": 0.9999}[precision]
        assert pooled["max_abs_error"] <= TOLERANCE[precision]


def test_inputs_and_outputs(folder: Path, family: str, precision: str) -> None:
    graph = onnx.load(folder / GRAPH).graph
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * (family == "bert")
    layers = read_manifest(folder).spec.layers
    assert [port.name for port in graph.input] == inputs
    assert [port.name for port in graph.output] == [f"hidden_{layer}" for layer in layers]
    for port in (*graph.input, *graph.output):
        shape = [dim.dim_param or dim.dim_value for dim in port.type.tensor_type.shape.dim]
        assert shape[:2] == ["rows", "seq"]
        assert shape[2:] == ([DIM] if port in graph.output else [])
    assert {port.type.tensor_type.elem_type for port in graph.input} == {TensorProto.INT64}
    assert {port.type.tensor_type.elem_type for port in graph.output} == {GRAPH_TYPES[precision]}


def test_weights_have_the_precision_and_softmax_is_in_fp32(folder: Path, precision: str) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(folder / GRAPH), strict_mode=True)
    graph = model.graph
    weights = {w.data_type for w in graph.initializer if len(w.dims) == 2 and min(w.dims) > 1}
    assert weights - {TensorProto.INT64} == {GRAPH_TYPES[precision]}
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)
    }
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    assert softmaxes
    for node in softmaxes:
        assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            stash = [a.i for a in node.attribute if a.name == "stash_type"]
            assert stash in ([], [TensorProto.FLOAT])  # the default is fp32


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_the_graph_is_the_model_as_transformers_runs_it(
    folder: Path,
    family: str,
    precision: str,
    backend: str,
    tiny_encoder: Callable[[str], Path],
) -> None:
    """The library's own tokenizer, padding and masking, which export replaces, say the same."""
    pairs = [(a, b) for a, b in zip(corpus()[:6], corpus()[6:12], strict=True)]
    texts: list[Any] = [*corpus()[12:24], *pairs]
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(family))
    model = AutoModel.from_pretrained(tiny_encoder(family)).eval()
    tokens = tokenize(folder, texts)
    got = run(folder, backend, pad_batch(tokens, tokenizer.pad_token_id))
    layers = read_manifest(folder).spec.layers
    for row, text in enumerate(texts):
        pair = (text,) if isinstance(text, str) else text
        encoded = tokenizer(
            *pair,
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        with torch.inference_mode():
            expected = model(**encoded, output_hidden_states=True).hidden_states
        assert encoded["input_ids"][0].tolist() == tokens[row].ids.tolist()
        for layer, hidden in zip(layers, got, strict=True):
            np.testing.assert_allclose(
                hidden[row, : tokens[row].ids.size],
                expected[layer][0].numpy(),
                atol=TOLERANCE[precision],
            )


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_padding_does_not_change_real_tokens(folder: Path, precision: str, backend: str) -> None:
    tokens = tokenize(folder, ["short", "tide " * 100, *corpus()[:10]])
    pad_id = read_manifest(folder).encoder.pad_id
    padded = run(folder, backend, pad_batch(tokens, pad_id))
    for row, text in enumerate(tokens):
        alone = run(folder, backend, pad_batch([text], pad_id))
        for hidden, hidden_alone in zip(padded, alone, strict=True):
            np.testing.assert_allclose(
                hidden[row, : text.ids.size], hidden_alone[0], atol=TOLERANCE[precision] / 10
            )


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_batches_of_every_shape_run(folder: Path, backend: str) -> None:
    encoder = read_manifest(folder).encoder
    for rows, seq in ((1, 1), (1, MAX_LENGTH), (3, 1), (200, 7), (64, MAX_LENGTH), (1, 2)):
        ids = np.full((rows, seq), encoder.pad_id + 3, np.int64)
        batch = TokenBatch(ids, np.ones_like(ids), np.zeros_like(ids), np.full(rows, seq))
        for hidden in run(folder, backend, batch):
            assert hidden.shape == (rows, seq, DIM)
            assert np.isfinite(hidden).all()


def test_the_manifest_describes_the_encoder(folder: Path, family: str, precision: str) -> None:
    manifest = read_manifest(folder)
    encoder = manifest.encoder
    assert encoder.model_type == family
    assert encoder.num_layers == (3 if family == "bert" else 2)
    assert encoder.attention_heads == 4
    assert encoder.max_length == MAX_LENGTH
    assert encoder.pad_id == (1 if "roberta" in family else 0)
    assert encoder.precision == precision
    assert manifest.spec.encoder == f"tiny-{family}"
    assert manifest.spec.dim == DIM
    assert {"bitheads", "python", "torch", "transformers", "onnx"} <= set(manifest.versions)


def test_precision_is_no_part_of_the_spec(build_bundle: Callable[..., Path], family: str) -> None:
    """Heads trained on either graph fit the other."""
    fp16, fp32 = (build_bundle(family, precision=name) for name in ("fp16", "fp32"))
    assert read_manifest(fp16).spec.id == read_manifest(fp32).spec.id


def test_token_types_reach_the_graph_of_bert(build_bundle: Callable[..., Path]) -> None:
    folder = build_bundle("bert")
    batch = pad_batch(tokenize(folder, [("the tide", "was out")]), 0)
    assert batch.token_type_ids.any()
    untyped = TokenBatch(
        batch.input_ids, batch.attention_mask, 0 * batch.token_type_ids, batch.lengths
    )
    typed_hidden, untyped_hidden = (run(folder, "openvino", b)[0] for b in (batch, untyped))
    assert np.abs(typed_hidden - untyped_hidden).max() > 0.1
