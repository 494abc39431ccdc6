"""How long TensorRT-RTX takes to build a plan, and how large it is; needs no GPU."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from benchmarks import record
from engine import bundle
from engine.types import FeatureSpec, LayerPooling, Order, Quantization
from export.config import choose_layers
from export.encoder import Encoder
from export.onnx_graph import export_graph
from export.plan import build_plan, resolve_plan
from export.plan_config import PlanConfig, default_profiles

MAX_LENGTH = 512
SHAPES: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "all-MiniLM-L6-v2": (
        BertConfig,
        BertModel,
        {
            "vocab_size": 30522,
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "max_position_embeddings": MAX_LENGTH,
        },
    ),
    "RoBERTa-large": (
        RobertaConfig,
        RobertaModel,
        {
            "vocab_size": 50265,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "max_position_embeddings": MAX_LENGTH + 2,
            "type_vocab_size": 1,
        },
    ),
}


def run(options: argparse.Namespace) -> None:
    """One build each with the first of the default profiles alone and with all of them.

    Weights are random: neither size nor time depends on them.
    """
    config = resolve_plan(PlanConfig(flavour="tensorrt-rtx"))
    result: dict[str, Any] = {"note": options.note, "shapes": {}}
    for name in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            manifest = _write_graph(name, Path(folder))
            builds = []
            for count in (1, None):
                profiles = default_profiles(MAX_LENGTH)[:count]
                started_s = time.perf_counter()
                plan = build_plan(Path(folder), manifest, replace(config, profiles=profiles), _say)
                assert plan is not None
                builds.append(
                    {
                        "profiles": [str(profile) for profile in profiles],
                        "build_s": round(time.perf_counter() - started_s, 1),
                        "plan_bytes": plan.info.plan_bytes,
                    }
                )
            result["version"] = plan.info.version
            result["compute_capabilities"] = list(plan.info.compute_capabilities)
            result["shapes"][name] = {
                "precision": manifest.encoder.precision,
                "outputs": len(manifest.output_names),
                "graph_bytes": sum(artifact.bytes for artifact in manifest.artifacts.values()),
                "builds": builds,
            }
    record.write("plan", "python -m benchmarks plan", result)


def _write_graph(name: str, folder: Path) -> bundle.Manifest:
    make_config, make_model, shape = SHAPES[name]
    _say(f"{name}: exporting")
    torch.manual_seed(0)
    config = make_config(**shape, attn_implementation="eager")
    encoder = Encoder(
        name=name,
        model=make_model(config, add_pooling_layer=False).half(),
        tokenizer=None,
        model_type=config.model_type,
        num_layers=config.num_hidden_layers,
        attention_heads=config.num_attention_heads,
        dim=config.hidden_size,
        max_length=MAX_LENGTH,
        pad_id=config.pad_token_id,
        weights_sha256="0" * 64,
    )
    layers = choose_layers(None, encoder.num_layers, LayerPooling.MEAN)
    written = export_graph(encoder, layers, "fp16", folder / bundle.GRAPH)
    spec = FeatureSpec(
        encoder=name,
        weights_sha256=encoder.weights_sha256,
        layers=layers,
        layer_pooling=LayerPooling.MEAN,
        quantization=Quantization.SIGN,
        order=Order.POOL_THEN_SIGN,
        dim=encoder.dim,
    )
    return bundle.Manifest(
        spec=spec,
        encoder=bundle.EncoderInfo(
            encoder.model_type,
            encoder.num_layers,
            encoder.attention_heads,
            MAX_LENGTH,
            encoder.pad_id,
            "fp16",
        ),
        artifacts={path.name: bundle.Artifact.of(path) for path in written},
        versions={},
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
