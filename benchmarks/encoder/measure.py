"""Texts in, codes out: the engine beside other libraries on the same texts, in the same run.

Each contender has a process and the same number of threads; they take turns, round after round.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.encoder import comparison, contenders
from benchmarks.encoder.contenders import Contender
from benchmarks.inputs import seeded_bundle, texts
from benchmarks.inputs.shapes import SEEDED, Shape
from benchmarks.inputs.source_model import load_source
from benchmarks.options import command, require_at_least
from bitheads.engine import bundle
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import BitheadsError, InputError
from bitheads.engine.features.spec import Quantization
from bitheads.engine.text_batches import open_tokenizer
from bitheads.export.source.encoder import find_encoder

MATMUL_SIZE, QUICK_MATMUL_SIZE = 2048, 128
QUICK_TEXTS, QUICK_ROUNDS = 12, 3

NOTES = {
    "bitheads": "Engine.encode: texts to packed codes of the mean of the last layers",
    "transformers": "torch, hidden states of all layers, length-sorted batches of 32, no packing",
    "sentence-transformers": "encode to sentence embeddings, batch_size=32; its signs are those of "
    "its token embeddings, the last layer",
    "OpenVINO plain": "the project's graph, length-sorted batches of 32, no packing",
    "ONNX Runtime plain": "the project's graph, length-sorted batches of 32, no packing",
    "CTranslate2": "its own conversion, last layer, length-sorted batches of 32, no packing",
    "percent_of_peak": "multiply-adds of the encoder's products for real tokens, over what one "
    "large matrix product of OpenVINO reaches at that precision in the same run",
}


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/encoder.json; a quick run's figures mean nothing and only print.

    Raises BundleError, ExportError or InputError, before anything is measured, for what is missing.
    """
    require_at_least(1, options, "threads", "texts", "seeded_texts", "rounds")
    unknown = [name for name in options.shapes or () if name not in SEEDED]
    if unknown:
        raise InputError(f"--shapes: got {unknown[0]!r}, expected some of {[*SEEDED]}.")
    shapes = {} if options.shapes is None else {n: SEEDED[n] for n in options.shapes or SEEDED}
    manifest = bundle.read_manifest(options.bundle)
    spec = manifest.spec
    if spec.quantization is not Quantization.SIGN or spec.calibration_sha256 is not None:
        raise InputError(
            f"--bundle {options.bundle}: its codes are not signs about zero, which is what others' "
            "are compared as."
        )
    everyone = contenders.chosen(options.only, manifest.quantized)
    typed = command("encoder", options)
    encoders = _stored() if options.keep else {spec.encoder: _of_bundle(options, everyone)}
    failed = {}
    for name, shape in shapes.items():
        try:
            measured = _of_shape(options, name, shape, [c for c in everyone if c.seeded])
            encoders[name] = {**measured, "command": typed, "date": date.today().isoformat()}
        except BitheadsError as error:  # such as memory that is too small: the others stay
            say(f"{name}: {error}")
            failed[name] = str(error)
    result = {
        "quick": options.quick,
        "threads": options.threads,
        "data": texts.source_of(options.data),
        "notes": NOTES,
        "encoders": encoders,
        "failed": failed,
    }
    record.keep("encoder", typed, result, options.quick)


def _stored() -> dict[str, Any]:
    """Encoders that were measured before, each with the run it is from."""
    if not record.exists("encoder"):
        raise InputError("--keep: nothing is stored. Leave it out.")
    stored = record.read("encoder")
    run = {"command": stored["command"], "date": stored["date"]}
    return {name: {**run, **encoder} for name, encoder in stored["result"]["encoders"].items()}


def _of_bundle(options: argparse.Namespace, everyone: list[Contender]) -> dict[str, Any]:
    manifest = bundle.read_manifest(options.bundle)
    encoder = load_source(options.encoder, options.bundle, manifest)
    shape = Shape(
        encoder.num_layers,
        encoder.dim,
        encoder.model.config.intermediate_size,
        encoder.attention_heads,
        pooled_layers=len(manifest.spec.layers),
    )
    say(manifest.spec.encoder)
    source = str(find_encoder(options.encoder))
    job = _job(options, options.bundle, source, shape, options.texts)
    return comparison.measure(job, everyone, say)


def _of_shape(
    options: argparse.Namespace, name: str, shape: Shape, everyone: list[Contender]
) -> dict[str, Any]:
    say(f"{name}: exporting")
    with tempfile.TemporaryDirectory() as folder:
        seeded_bundle.make_bundle(name, shape, options.bundle, Path(folder))
        job = _job(options, Path(folder), None, shape, options.seeded_texts)
        return comparison.measure(job, everyone, say)


def _job(
    options: argparse.Namespace, folder: Path, source: str | None, shape: Shape, num_texts: int
) -> comparison.Job:
    found = texts.mixed(options.data, QUICK_TEXTS if options.quick else num_texts)
    manifest = bundle.read_manifest(folder)
    tokenizer = open_tokenizer(folder, manifest)
    return comparison.Job(
        bundle=folder,
        source=source,
        shape=shape,
        texts=found,
        lengths=[tokens.ids.size for tokens in tokenizer(found)],
        threads=options.threads,
        matmul_size=QUICK_MATMUL_SIZE if options.quick else MATMUL_SIZE,
        rounds=QUICK_ROUNDS if options.quick else options.rounds,
        python=options.peers_python,
    )
