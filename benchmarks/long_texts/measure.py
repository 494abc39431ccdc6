"""One text of 64 to 8,192 tokens through an encoder of ModernBERT-base's shape, seeded weights.

Beside transformers with its fused attention, and the graph as it is traced without windows.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.inputs import seeded_bundle
from benchmarks.inputs.shapes import MODERNBERT_BASE, Shape, random_encoder
from benchmarks.options import command, require_at_least
from benchmarks.processes import child
from bitheads.engine import bundle
from bitheads.engine.commands.command_line import say
from bitheads.engine.sessions import supports_bf16
from bitheads.export.onnx_graph import export_graph
from bitheads.export.source.architecture import EAGER, USUAL_MAX_LENGTH

LENGTHS, REPEATS = (64, 512, 2048, 8192), (20, 10, 3, 1)
QUICK_LENGTHS, QUICK_REPEATS = (16, 600), (1, 1)
QUICK_SHAPE = Shape(
    3, 64, 64, 4, 2, vocab_size=50368, max_length=2048, family="modernbert", gated=True
)
NAME = "ModernBERT-base"


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/long_texts.json; a quick run only prints.

    Raises BundleError for a --bundle that is none.
    """
    require_at_least(1, options, "threads", "rounds")
    shape = QUICK_SHAPE if options.quick else MODERNBERT_BASE
    rounds = 1 if options.quick else options.rounds
    lengths, repeats = (QUICK_LENGTHS, QUICK_REPEATS) if options.quick else (LENGTHS, REPEATS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"{NAME}: exporting, with windows and without")
        seeded_bundle.make_bundle(NAME, shape, options.bundle, folder)
        plain = _export_plain(shape, folder)
        common = {"lengths": lengths, "repeats": repeats, "threads": options.threads}
        ways: dict[str, dict[str, Any]] = {}
        for precision in ("fp32", *(["bf16"] if supports_bf16("openvino") else [])):
            ways |= {
                f"bitheads, {precision}": {"way": "bitheads", "bundle": str(folder)},
                f"without windows, {precision}": {"way": "plain", "graph": str(plain)},
            }
            for way in list(ways)[-2:]:
                ways[way]["precision"] = precision
        ways["transformers, fp32"] = {"way": "transformers", "shape": asdict(shape)}
        found: dict[str, Any] = {}
        for number in range(1, rounds + 1):
            for way, request in ways.items():
                say(f"round {number} of {rounds}: {way}")
                answer = child.run("benchmarks.long_texts.child", {**request, **common})
                _keep_least(found.setdefault(way, {}), answer)
    result = {
        "quick": options.quick,
        "threads": options.threads,
        "shape": asdict(shape),
        "ways": found,
    }
    record.keep("long_texts", command("long_texts", options), result, options.quick)


def _export_plain(shape: Shape, folder: Path) -> Path:
    """The same encoder's graph with masks as wide as the text, as transformers makes them."""
    encoder = random_encoder(NAME, shape)
    encoder = replace(
        encoder,
        max_length=USUAL_MAX_LENGTH,
        forward=replace(encoder.forward, attention=EAGER),
    )
    path = folder / "plain.onnx"
    layers = bundle.read_manifest(folder).spec.layers
    export_graph(encoder, layers, seeded_bundle.PRECISION, path)
    return path


def _keep_least(kept: dict[str, Any], answer: dict[str, Any]) -> None:
    """Time and memory of each length: the least of all rounds."""
    for length, row in answer["lengths"].items():
        before = kept.setdefault(length, row)
        kept[length] = {name: min(before[name], row[name]) for name in row}
