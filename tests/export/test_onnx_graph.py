"""Graphs too large for one file, and masks that float16 can add to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from marks import long
from onnx import TensorProto, numpy_helper

from benchmarks.inputs.model_types import TYPES, save_encoder
from bitheads.engine.sessions import BACKENDS, open_session
from bitheads.engine.types import TokenBatch
from bitheads.export import onnx_graph
from bitheads.export.source.encoder import load_encoder


def test_weights_of_a_large_graph_go_beside_it(
    tiny_encoder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "MAX_SINGLE_FILE_BYTES", 10_000)
    encoder = load_encoder(str(tiny_encoder("distilbert")))
    path = tmp_path / "encoder.onnx"
    files = onnx_graph.export_graph(encoder, (1, 2), "fp32", path)
    assert files == [path, tmp_path / "encoder.onnx.data"]
    assert path.stat().st_size < 100_000 < files[1].stat().st_size
    assert b".py" not in path.read_bytes(), "the graph names files of this machine"

    ids = np.full((1, 5), 7, np.int64)
    ones = np.ones_like(ids)
    batch = TokenBatch(ids, ones, ones, np.array([5]))
    first, *others = (
        open_session(path, ["hidden_1", "hidden_2"], backend, "fp32").run(batch)[1]
        for backend in sorted(BACKENDS)
    )
    assert np.abs(first).max() > 0.1
    for other in others:
        np.testing.assert_allclose(first, other, atol=1e-4)


@pytest.mark.parametrize("model_type", ["qwen3", *long("deberta-v2")])
def test_no_mask_is_the_lowest_float16(model_type: str, tmp_path: Path) -> None:
    """transformers masks with it, by a sum or instead of the scores."""
    source = save_encoder(model_type, TYPES[model_type], tmp_path / "source")
    onnx_graph.export_graph(load_encoder(str(source)), (1, 2), "fp16", tmp_path / "encoder.onnx")
    graph = onnx.load(tmp_path / "encoder.onnx").graph
    tensors = [*graph.initializer]
    tensors += [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute]
    halves = [t for t in tensors if t.data_type == TensorProto.FLOAT16]
    lowest = min(float(numpy_helper.to_array(tensor).min()) for tensor in halves)
    assert lowest == np.float16(-1e4)
