"""Sign agreement of every session with torch in fp32, on real sentences."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import record
from benchmarks.inputs.source_model import load_source
from benchmarks.inputs.texts import drawn
from benchmarks.options import command
from bitheads.engine import bundle
from bitheads.engine.text_batches import open_tokenizer
from bitheads.export.comparison.compared_texts import run_reference
from bitheads.export.comparison.odd_texts import LONGEST_RUN, odd_texts
from bitheads.export.comparison.parity import available_sessions, compare_session
from bitheads.export.comparison.reference_model import ReferenceModel
from bitheads.export.source.encoder import find_encoder
from bitheads.export.texts import read_texts


def run(options: argparse.Namespace) -> None:
    """Compares a bundle's graph with its source model, session by session."""
    manifest = bundle.read_manifest(options.bundle)
    encoder = load_source(options.encoder, options.bundle, manifest)
    texts = read_texts(None) if options.data is None else drawn(options.data, options.texts)
    limit, layers, prefix = manifest.encoder.max_length, manifest.spec.layers, manifest.spec.prefix
    tokenizer = open_tokenizer(options.bundle, manifest)
    reference = ReferenceModel(find_encoder(options.encoder), limit, prefix)
    odd = odd_texts(encoder.tokenizer, limit, tokenizer.takes_pairs, prefix)
    sentences, one_by_one = (
        run_reference(reference, tokenizer, some, layers, encoder.pad_id, LONGEST_RUN)
        for some in ({f"text {i}": text for i, text in enumerate(texts, 1)}, odd)
    )
    calibration = bundle.read_calibration(options.bundle, manifest.spec)
    sessions: dict[str, Any] = {
        f"{backend} {precision}": compare_session(
            options.bundle,
            layers,
            backend,
            precision,
            sentences,
            one_by_one,
            calibration,
            manifest.spec.layer_weights,
        )
        for backend, precision in available_sessions(manifest.quantized)
    }
    result = {
        "encoder": encoder.name,
        "texts": len(texts),
        "tokens": int(sentences.lengths.sum()),
        "signs": sentences.layers[0].size,
        "graph_precision": manifest.encoder.precision,
        "sessions": sessions,
    }
    record.write("parity", command("parity", options), result)
