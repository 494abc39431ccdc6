"""A bundle of an encoder's shape with seeded random weights: for speed, its codes mean nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.inputs.random_heads import spec_of
from benchmarks.inputs.shapes import Shape, random_encoder
from bitheads.engine import bundle
from bitheads.engine.features.spec import LayerPooling, Quantization
from bitheads.export.config import choose_layers
from bitheads.export.onnx_graph import export_graph

PRECISION = "fp16"


def make_bundle(name: str, shape: Shape, like: Path, folder: Path) -> None:
    """Writes it into `folder`, with the tokenizer of the bundle `like`.

    Raises BundleError if that is none.
    """
    manifest = bundle.read_manifest(like)
    encoder = random_encoder(name, shape)
    layers = choose_layers(None, shape.layers, LayerPooling.MEAN)
    written = export_graph(encoder, layers, PRECISION, folder / bundle.GRAPH)
    shutil.copyfile(like / bundle.TOKENIZER, folder / bundle.TOKENIZER)
    spec = spec_of(shape, Quantization.SIGN, name, layers)
    info = replace(
        manifest.encoder,
        model_type=shape.family,
        num_layers=shape.layers,
        attention_heads=shape.attention_heads,
        max_length=shape.max_length,
        pad_id=encoder.pad_id,
        vocabulary=encoder.vocabulary,
        token_types=encoder.token_types,
        precision=PRECISION,
    )
    paths = [*written, folder / bundle.TOKENIZER]
    artifacts = {path.name: bundle.Artifact.of(path) for path in paths}
    made = bundle.Manifest(spec, info, artifacts, manifest.versions)
    (folder / bundle.MANIFEST).write_text(made.dumps(), encoding="utf-8")
