"""Attention in one kernel: what TensorRT-RTX makes of each kind of attention, by its own list.

`python -m benchmarks model_types` has all types; here are those whose attention differs most.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from marks import long
from plan_cases import needs_rtx

from benchmarks.inputs.model_types import TYPES, num_layers, save_encoder
from benchmarks.model_types.plan_kernels import FUSED_ATTENTION, count, plan_kernels
from bitheads.engine.bundle import GRAPH
from bitheads.engine.device.profile import Profile
from bitheads.export.onnx_graph import export_graph
from bitheads.export.source.encoder import load_encoder

PROFILE = Profile((1, 1), (4, 64), (8, 80))


def fused_in(model_type: str, folder: Path) -> int:
    """Layers whose attention is one kernel."""
    source = save_encoder(model_type, TYPES[model_type], folder / "source")
    layers = num_layers(model_type)
    export_graph(load_encoder(str(source)), (layers - 1, layers), "fp16", folder / GRAPH)
    return count(plan_kernels(folder / GRAPH, PROFILE), FUSED_ATTENTION)


@needs_rtx
@pytest.mark.parametrize("model_type", ["modernbert", "t5", *long("mpnet", "qwen3", "gemma3_text")])
def test_a_layers_attention_is_one_kernel(model_type: str, tmp_path: Path) -> None:
    """With a bias, rotary positions and windows, grouped keys, and scores that are not scaled."""
    assert fused_in(model_type, tmp_path) == num_layers(model_type)


@needs_rtx
def test_disentangled_scores_are_not_fused(tmp_path: Path) -> None:
    """DeBERTa-v3 adds scores that it gathers by distance, in tensors of another rank."""
    assert fused_in("deberta-v2", tmp_path) == 0
