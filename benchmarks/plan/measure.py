"""How long TensorRT-RTX takes to build a plan, and how large it is; needs no GPU."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.inputs.random_heads import spec_of
from benchmarks.inputs.shapes import SHAPES, Shape, random_encoder
from bitheads.engine import bundle
from bitheads.engine.commands.command_line import say
from bitheads.engine.features.spec import LayerPooling, Quantization
from bitheads.export.config import choose_layers
from bitheads.export.onnx_graph import export_graph
from bitheads.export.plans.build_plan import build_plan, resolve_plan
from bitheads.export.plans.plan_config import PlanConfig, default_profiles


def run(options: argparse.Namespace) -> None:
    """One build each with the first of the default profiles alone and with all of them.

    Weights are random: neither size nor time depends on them.
    """
    config = resolve_plan(PlanConfig(flavour="tensorrt-rtx"))
    result: dict[str, Any] = {"note": options.note, "shapes": {}}
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            manifest = _write_graph(name, shape, Path(folder))
            builds = []
            for count in (1, None):
                profiles = default_profiles(shape.max_length)[:count]
                started_s = time.perf_counter()
                plan = build_plan(Path(folder), manifest, replace(config, profiles=profiles), say)
                assert plan is not None
                info = plan.info
                builds.append(
                    {
                        "profiles": [str(profile) for profile in profiles],
                        "build_s": round(time.perf_counter() - started_s, 1),
                        "plan_bytes": info.plan_bytes,
                    }
                )
            result["version"] = info.version
            result["compute_capabilities"] = list(info.compute_capabilities)
            result["shapes"][name] = {
                "precision": manifest.encoder.precision,
                "outputs": len(manifest.output_names),
                "graph_bytes": sum(artifact.bytes for artifact in manifest.artifacts.values()),
                "builds": builds,
            }
    record.write("plan", "python -m benchmarks plan", result)


def _write_graph(name: str, shape: Shape, folder: Path) -> bundle.Manifest:
    say(f"{name}: exporting")
    encoder = random_encoder(name, shape)
    layers = choose_layers(None, encoder.num_layers, LayerPooling.MEAN)
    written = export_graph(encoder, layers, "fp16", folder / bundle.GRAPH)
    return bundle.Manifest(
        spec=spec_of(shape, Quantization.SIGN, name, layers),
        encoder=bundle.EncoderInfo(
            encoder.model_type,
            encoder.num_layers,
            encoder.attention_heads,
            encoder.max_length,
            encoder.pad_id,
            "fp16",
            encoder.vocabulary,
            encoder.token_types,
        ),
        artifacts={path.name: bundle.Artifact.of(path) for path in written},
        versions={},
    )
