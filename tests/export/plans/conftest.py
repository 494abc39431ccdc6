"""TensorRT-RTX, and a deep graph to build plans from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from plan_cases import DEEP_LAYERS

from bitheads.engine import FeatureSpec, LayerPooling, Order, Quantization, bundle
from bitheads.export.onnx_graph import export_graph
from bitheads.export.plans import tensorrt_module
from bitheads.export.source.encoder import Encoder


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
