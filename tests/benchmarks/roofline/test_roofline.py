"""The roofline model: its counts by hand, its bounds, and that what is stored is what it says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.inputs.shapes import SHAPES, Shape
from benchmarks.roofline import model
from benchmarks.roofline.model import GPUS, Fractions, Gpu, Work
from bitheads.engine.device.encoder import MAX_BATCH_TOKENS
from bitheads.engine.features.spec import LayerPooling
from bitheads.export.config import choose_layers

ROOT = Path(__file__).parents[3]

TINY = Shape(layers=1, dim=128, ffn_dim=256, attention_heads=2, pooled_layers=3)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("shape", SHAPES)
def test_packing_takes_five_percent_at_most(shape: str, gpu: str) -> None:
    """Also as if the encoder's activations never left the cache."""
    predicted = model.predict(model.stages(SHAPES[shape], 14), GPUS[gpu])["pool_and_pack"]
    assert predicted["bound"] == "memory"
    assert float(predicted["share_of_encoder"]) <= 0.05
    assert float(predicted["share_of_products_alone"]) <= 0.05


def test_one_gpu_is_not_compiled_for() -> None:
    assert [name for name, gpu in GPUS.items() if not gpu.is_compiled_for] == ["T4"]


def test_the_batch_is_the_engines() -> None:
    assert model.BATCH_TOKENS == MAX_BATCH_TOKENS


def test_counts_of_the_encoder() -> None:
    d, f, text = 128, 256, 50
    work = model.encoder(TINY)
    assert work.tensor_flops == 2 * (4 * d * d + 2 * d * f) + 4 * text * d
    assert work.memory_bytes == pytest.approx(
        2 * (18 * d + 2 * f) + 2 * (4 * d * d + 2 * d * f) / model.BATCH_TOKENS
    )
    assert model.encoder(replace(TINY, layers=5)).tensor_flops == 5 * work.tensor_flops


def test_counts_of_packing() -> None:
    work = model.pool_and_pack(TINY)
    assert work.memory_bytes == 3 * 128 * 2 + 16
    assert model.pool_and_pack(SHAPES["RoBERTa-large"]).memory_bytes == 32768 + 128


def test_counts_of_attention_pooling() -> None:
    """Two tasks' four queries are one group of 16; nine tasks' eighteen are two."""
    one, two = (model.packed_attention_pool(TINY, tasks) for tasks in (2, 9))
    # Scores of 64 tokens in two parts, weighted sums over 64, for a text of 50.
    assert one.tensor_flops * 50 == 2 * 16 * 128 * (2 * 64 + 64)
    assert two.tensor_flops == 2 * one.tensor_flops
    fragments = 2 * 16 * 128 * 2
    once = fragments / (327 * 50)
    assert one.memory_bytes == pytest.approx(16 + 4 * 128 * 2 / 50 + once)
    assert one.l2_bytes == pytest.approx(2 * fragments / 50 - once)
    assert two.l2_bytes == pytest.approx(2 * (2 * fragments / 50 - once) + 16)


def test_slices_take_all_scores_again() -> None:
    wide = replace(TINY, dim=2048)
    work = model.packed_attention_pool(wide, 2)
    assert work.tensor_flops * 50 == 2 * 16 * 2048 * (2 * 2 * 64 + 64)


def test_counts_of_the_dense_stage() -> None:
    work = model.dense(TINY, 1)
    # 128 values, 128 inner outputs; three classes take half a tile of 64. 327 texts take 336.
    assert work.tensor_flops * 50 == pytest.approx(2 * 128 * (128 + 128 + 32) * 336 / 327)
    weights = 128 * (128 + 128 + 3) * 2
    inputs, outputs = (2 * 128 + 128 + 128) * 2, (128 + 128) * 2 + 3 * 4
    assert work.memory_bytes * 50 == pytest.approx(weights / 327 + inputs + outputs)
    # Six tiles of texts; the inner layer's outputs are two tiles.
    assert work.l2_bytes * 50 == pytest.approx(5 * weights / 327 + 128 * 2)
    assert model.dense(TINY, 10).memory_bytes == pytest.approx(10 * work.memory_bytes)


def test_many_tasks_take_several_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.launches(TINY, 1) == [327]
    text_bytes = (2 * 128 + 2 * 128) * 2
    monkeypatch.setattr("bitheads.engine.device.heads.WORKSPACE_BYTES", 100 * text_bytes)
    assert model.launches(TINY, 1) == [100, 100, 100, 27]
    assert model.launches(TINY, 1000) == [100, 100, 100, 27]
    monkeypatch.setattr("bitheads.engine.device.heads.MIN_BLOCK_TEXTS", 50)  # room for two heads
    assert model.launches(TINY, 1000) == [50] * 6 + [27]


def constants(name: str) -> dict[str, int]:
    """Those of a file of kernels/cuda that are plain numbers."""
    source = (ROOT / "kernels/cuda" / name).read_text(encoding="utf-8")
    found = re.findall(r"constexpr int (k\w+) = (\d+);", source)
    return {constant: int(value) for constant, value in found}


def test_tiles_are_those_of_the_kernels() -> None:
    pool = constants("packed_attention_pool_args.h")
    assert pool["kGroupColumns"] == model.GROUP_COLUMNS
    assert pool["kSliceDim"] == model.SLICE_DIM
    assert pool["kUnitDim"] == model.UNIT_DIM
    assert pool["kStepDim"] * pool["kSignSteps"] == model.SIGN_DIM
    header = (ROOT / "kernels/cuda/packed_attention_pool_args.h").read_text(encoding="utf-8")
    assert f"return quantization == BH_SIGN ? {model.TILE_TOKENS} :" in header
    kernel = (ROOT / "kernels/cuda/packed_attention_pool.cuh").read_text(encoding="utf-8")
    parts = constants("packed_attention_pool.cuh")["kScoreParts"]
    assert pool["kPoolWarps"] == parts * model.FRAGMENT_READERS
    # Half of the score tiles, of 8 tokens for each reader, or all of them.
    assert "kFewTiles = (kScoreTiles + 1) / 2;" in kernel
    assert "tokens <= kFewTiles * 16" in kernel
    assert f"token < tokens; token += {model.POOL_TOKENS})" in kernel

    dense = constants("grouped_dense_args.h")
    assert dense["kDenseTexts"] == model.DENSE_TEXTS
    assert dense["kDenseOutputs"] == model.DENSE_OUTPUTS
    assert dense["kDenseDepth"] == model.DENSE_DEPTH
    assert dense["kDenseTexts"] == dense["kDenseWarps"] * model.WARP_TEXTS
    kernel = (ROOT / "kernels/cuda/grouped_dense.cuh").read_text(encoding="utf-8")
    assert "if (outputs_ <= kDenseOutputs / 2)" in kernel
    assert model.FEW_OUTPUTS * 2 == model.DENSE_OUTPUTS


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_many_layers_are_pooled_as_a_build_pools(shape: Shape) -> None:
    assert len(choose_layers(None, shape.layers, LayerPooling.MEAN)) == shape.pooled_layers


def test_time_is_that_of_the_scarcest_resource() -> None:
    gpu = Gpu("9.0", tensor_tflops=1, fp32_tflops=2, memory_gb_per_s=1000, pcie_gb_per_s=1)
    fractions = Fractions(1, 0.5, 1, 1, 1, 2)
    seconds = Work(1000, 3000, 1000, 1000).seconds(gpu, fractions)
    assert seconds == pytest.approx({"memory": 1e-9, "l2": 2e-9, "tensor": 1e-9, "fp32": 1e-9})
    assert Work(0, 0, 1000, heads=True).seconds(gpu, fractions)["tensor"] == pytest.approx(2e-9)


def test_what_is_stored_is_what_the_model_says() -> None:
    """Otherwise type: python -m benchmarks roofline; python -m benchmarks tables"""
    assert record.read("roofline")["result"] == json.loads(json.dumps(model.compute()))
