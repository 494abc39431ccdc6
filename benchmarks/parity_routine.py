"""Sign agreement of every session with torch in fp32, on real sentences."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import record
from benchmarks.texts import drawn
from engine import bundle
from engine.errors import InputError
from engine.tokenize import TextTokenizer
from export.encoder import HiddenStates, load_encoder
from export.parity import available_sessions, compare_session
from export.texts import read_texts, token_batches, torch_hidden_states


def run(options: argparse.Namespace) -> None:
    """Compares a bundle's graph with its source model, session by session."""
    manifest = bundle.read_manifest(options.bundle)
    encoder = load_encoder(options.encoder)
    if encoder.weights_sha256 != manifest.spec.weights_sha256:
        raise InputError(
            f"--encoder {options.encoder}: its weights are not those of bundle {options.bundle}."
        )
    texts = read_texts(None) if options.data is None else drawn(options.data, options.texts)
    tokenizer = TextTokenizer(options.bundle / bundle.TOKENIZER, manifest.encoder.max_length)
    batches = token_batches(tokenizer, texts, encoder.pad_id)
    layers = manifest.spec.layers
    expected = list(torch_hidden_states(HiddenStates(encoder, layers), batches))
    calibration = bundle.read_calibration(options.bundle, manifest.spec)
    sessions: dict[str, Any] = {
        f"{backend} {precision}": compare_session(
            options.bundle,
            layers,
            backend,
            precision,
            batches,
            expected,
            calibration,
            manifest.spec.layer_weights,
        )
        for backend, precision in available_sessions(manifest.has_int8)
    }
    result = {
        "encoder": encoder.name,
        "texts": len(texts),
        "tokens": int(sum(len(batch[0]) for batch in expected)),
        "signs": int(sum(batch[0].size for batch in expected)),
        "graph_precision": manifest.encoder.precision,
        "sessions": sessions,
    }
    data = " --data DIR" if options.data else ""
    record.write("parity", f"python -m benchmarks parity{data}", result)
