"""Layers with windows are computed in blocks, and come out as transformers computes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from marks import long
from transformers import AutoModel

from benchmarks.inputs.model_types import TYPES, save_encoder
from bitheads.export.graph_arithmetic import GraphArithmetic
from bitheads.export.onnx_graph import export_graph
from bitheads.export.source.architecture import EAGER
from bitheads.export.source.encoder import Encoder, load_encoder
from bitheads.export.source.windows import WINDOWED
from bitheads.export.window_graph import MIN_BLOCK

LENGTHS = (1, 2, 40, MIN_BLOCK - 1, MIN_BLOCK, MIN_BLOCK + 1, 2 * MIN_BLOCK, 2 * MIN_BLOCK + 389)
"""One block, the first of two, and several, of which the last is short."""
LONG = {"max_position_embeddings": 8192}


def _encoder(model_type: str, folder: Path, values: Mapping[str, Any] | None = None) -> Encoder:
    save_encoder(model_type, {**TYPES[model_type], **LONG, **(values or {})}, folder)
    return load_encoder(str(folder))


def _run(graph: Path, lengths: tuple[int, ...], vocabulary: int) -> list[list[Any]]:
    """Ids of each text, and its hidden states, computed in one batch."""
    rng = np.random.default_rng(7)
    texts = [rng.integers(5, vocabulary, length) for length in lengths]
    ids = np.zeros((len(texts), max(lengths)), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : text.size], mask[row, : text.size] = text, 1
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"input_ids": ids, "attention_mask": mask})
    return [
        [text, *(output[row, : text.size] for output in outputs)] for row, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    "model_type",
    [
        "modernbert",
        *long("gemma3_text", "mistral", "modernbert-decoder"),
    ],
)
def test_texts_of_any_length_are_as_transformers_computes_them_alone(
    model_type: str, tmp_path: Path
) -> None:
    encoder = _encoder(model_type, tmp_path / "source")
    assert encoder.forward.attention == WINDOWED
    layers = (encoder.num_layers - 1, encoder.num_layers)
    export_graph(encoder, layers, "fp32", tmp_path / "encoder.onnx")
    model: Any = AutoModel.from_pretrained(tmp_path / "source").eval()
    assert model.config._attn_implementation == "sdpa"
    for text, *hidden in _run(tmp_path / "encoder.onnx", LENGTHS, encoder.vocabulary):
        with torch.inference_mode():
            found = model(torch.from_numpy(text)[None], output_hidden_states=True).hidden_states
        for layer, got in zip(layers, hidden, strict=True):
            expected = found[layer][0].numpy()
            error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
            assert error < 1e-5, (text.size, layer)


@pytest.mark.parametrize(
    "window",
    [
        127,
        *long(2, 15, 16, MIN_BLOCK, MIN_BLOCK + 70),
    ],
)
def test_windows_of_any_size(window: int, tmp_path: Path) -> None:
    encoder = _encoder("mistral", tmp_path / "source", {"sliding_window": window})
    export_graph(encoder, (2,), "fp32", tmp_path / "encoder.onnx")
    model: Any = AutoModel.from_pretrained(tmp_path / "source").eval()
    lengths = (window, window + 1, 3 * window + 700, 5)
    for text, got in _run(tmp_path / "encoder.onnx", lengths, encoder.vocabulary):
        with torch.inference_mode():
            found = model(torch.from_numpy(text)[None], output_hidden_states=True).hidden_states
        expected = found[2][0].numpy()
        assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected), text.size


@pytest.mark.long
def test_the_window_is_seen(tmp_path: Path) -> None:
    """Another window gives other states: the comparisons above can fail."""
    states = []
    for window in (64, 65):
        folder = tmp_path / str(window)
        encoder = _encoder("mistral", folder, {"sliding_window": window})
        export_graph(encoder, (2,), "fp32", folder / "encoder.onnx")
        states.append(_run(folder / "encoder.onnx", (900,), encoder.vocabulary)[0][1])
    assert np.linalg.norm(states[0] - states[1]) > 1e-4 * np.linalg.norm(states[0])


def test_numbers_grow_with_the_length_and_not_with_its_square(tmp_path: Path) -> None:
    encoder = _encoder("mistral", tmp_path / "source")
    export_graph(encoder, (2,), "fp32", tmp_path / "encoder.onnx")
    model = onnx.load(tmp_path / "encoder.onnx")
    most = []
    for length in (4 * MIN_BLOCK, 8 * MIN_BLOCK):
        ids = np.full((1, length), 7, np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        sizes = [
            values.size
            for _, made in GraphArithmetic(model).run(inputs)
            for values in made.values()
        ]
        most.append(max(sizes))
    assert most[1] <= 2.01 * most[0]


@pytest.mark.long
def test_attention_of_another_kind_stays_as_it_is(tmp_path: Path) -> None:
    """Gemma 2 has windows, and bends its scores, which is no attention of plain scores."""
    values = {**TYPES["gemma3_text"], "head_dim": 16, **LONG}
    save_encoder("gemma2", values, tmp_path / "source")
    encoder = load_encoder(str(tmp_path / "source"))
    assert encoder.forward.attention == EAGER
    export_graph(encoder, (2,), "fp32", tmp_path / "encoder.onnx")
    model: Any = AutoModel.from_pretrained(tmp_path / "source", attn_implementation="eager").eval()
    for text, got in _run(tmp_path / "encoder.onnx", (3, 50, 200), encoder.vocabulary):
        with torch.inference_mode():
            found = model(torch.from_numpy(text)[None], output_hidden_states=True).hidden_states
        expected = found[2][0].numpy()
        assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


def test_a_model_keeps_its_own_attention(tmp_path: Path) -> None:
    """What is trained, or run by others, is not in blocks: only the graph is."""
    encoder = _encoder("modernbert", tmp_path / "source")
    export_graph(encoder, (4,), "fp32", tmp_path / "encoder.onnx")
    assert encoder.model.config._attn_implementation == EAGER
