"""The paper's Table 2 from real files: what the features of 50 tokens take on disk.

The files hold codes as the engine writes them, of a real encoder's hidden states on real texts;
for shapes without weights, of seeded random numbers, which take as many bytes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.inputs.shapes import SHAPES, TEXT_TOKENS, Shape
from benchmarks.inputs.source_model import load_source
from benchmarks.options import command, require_at_least
from benchmarks.storage.files import BATCH_TEXTS, PRECISIONS, Features, seeded, write
from bitheads.engine import bundle
from bitheads.engine.batching import pad_batch
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError
from bitheads.engine.sessions import open_session
from bitheads.engine.texts.tokenize import TextTokenizer, Tokens
from bitheads.export.onnx_graph import export_graph
from bitheads.export.texts import read_texts

TINY = Shape(3, 64, 128, 4, pooled_layers=2, vocab_size=200, max_length=64)
BITS = {"fp16": 16, "uint8": 8, "sign": 1}
POOLINGS = ("every layer", "mean", "last")
"""`every layer` is what task-specific layer weights need: nothing is pooled before it is kept."""
POSITIONS = ("every token", "one vector")


def run(options: argparse.Namespace) -> None:
    """Writes, measures and stores results/storage.json; a quick run only prints.

    Raises BundleError, ExportError or InputError for a bundle or texts that are missing.
    """
    require_at_least(1, options, "texts")
    if options.quick:
        features = {"tiny": seeded(TINY, 3)}
    else:
        name = "RoBERTa-large"
        features = {
            "all-MiniLM-L6-v2": encoded(options.bundle, options.encoder, options.texts),
            name: seeded(SHAPES[name], min(options.texts, BATCH_TEXTS)),
        }
    result = {
        "quick": options.quick,
        "text_tokens": TEXT_TOKENS,
        "encoders": {name: measure(found) for name, found in features.items()},
    }
    record.keep("storage", command("storage", options), result, options.quick)


def measure(features: Features) -> dict[str, Any]:
    """A file for every layer pooling, position pooling and precision, and its bytes per text."""
    texts, tokens, dim = features.layers[0].shape
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for pooling in POOLINGS:
            for positions in POSITIONS:
                for precision in PRECISIONS:
                    file = Path(folder) / "codes"
                    write(file, features, pooling, positions, precision)
                    num_layers = len(features.layers) if pooling == "every layer" else 1
                    num_positions = tokens if positions == "every token" else 1
                    cells.append(
                        {
                            "layer_pooling": pooling,
                            "positions": positions,
                            "precision": precision,
                            "bytes_a_text": file.stat().st_size / texts,
                            "formula": formula(num_layers, num_positions, dim, precision),
                        }
                    )
    return {
        "source": features.source,
        "texts": texts,
        "dim": dim,
        "layers": len(features.layers),
        "pooled_layers": features.pooled_layers,
        "cells": cells,
    }


def formula(layers: int, positions: int, dim: int, precision: str) -> int:
    """Bytes per text by the numbers alone; a token's signs end at a byte."""
    return layers * positions * -(-dim * BITS[precision] // 8)


def encoded(bundle_folder: Path, encoder_name: str, texts: int) -> Features:
    """Hidden states of the bundle's encoder, all its layers, on shipped texts of 50 tokens."""
    manifest = bundle.read_manifest(bundle_folder)
    encoder = load_source(encoder_name, bundle_folder, manifest)
    path, prefix = bundle_folder / bundle.TOKENIZER, manifest.spec.prefix
    tokenizer = TextTokenizer(path, TEXT_TOKENS, prefix=prefix)
    tokens = of_50_tokens(tokenizer, texts)
    all_layers = tuple(range(1, encoder.num_layers + 1))
    say("exporting all layers")
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / bundle.GRAPH
        export_graph(encoder, all_layers, "fp16", graph)
        session = open_session(graph, [f"hidden_{layer}" for layer in all_layers])
        batches: list[list[NDArray[Any]]] = []
        for start in range(0, len(tokens), BATCH_TEXTS):
            batch = pad_batch(tokens[start : start + BATCH_TEXTS], manifest.encoder.pad_id)
            batches.append([np.array(layer) for layer in session.run(batch)])
    layers = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return Features("real texts", layers, len(manifest.spec.layers))


def of_50_tokens(tokenizer: TextTokenizer, texts: int) -> list[Tokens]:
    """Shipped sentences, as many joined as it takes, cut by the tokenizer to 50 tokens.

    Raises InputError if that makes fewer than `texts`.
    """
    sentences = read_texts(None)
    joined = [" ".join((sentences * 2)[i : i + 8]) for i in range(len(sentences))]
    found = [tokens for tokens in tokenizer(joined) if tokens.ids.size == TEXT_TOKENS]
    if len(found) < texts:
        raise InputError(f"--texts: got {texts}, expected at most {len(found)}.")
    return found[:texts]
