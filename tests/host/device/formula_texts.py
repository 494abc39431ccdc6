"""Texts for the software device, and their codes by the formula and the processor's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from formula_sessions import hidden_state

from benchmarks.contenders.host_library import HostFeatures
from bitheads import Engine, PackedFeatures
from bitheads.engine.bundle import read_calibration, read_manifest
from bitheads.engine.features.pack import pack_layers
from bitheads.engine.features.spec import Calibration
from bitheads.engine.types import Text

TEXTS: list[Text] = [
    "tide",
    "the tide was out",
    "a longer line about the harbour, its boats and the weather of that day " * 2,
    ("was it out?", "it was"),
    "",
    *(f"number {i} of " + "many words " * (i % 7) for i in range(30)),
]
SINGLES = [text for text in TEXTS if isinstance(text, str)]


def expected_codes(engine: Engine, folder: Path, texts: Sequence[Text]) -> PackedFeatures:
    """The formula's hidden states, packed by the CPU kernels, text by text."""
    spec = engine.spec
    calibration = read_calibration(folder, read_manifest(folder).spec) or Calibration()
    codes, offsets = [], [0]
    for tokens in engine._tokenizer(texts):
        ids = np.array([tokens.ids], np.int64)
        types = (np.arange(ids.size)[None] >= tokens.num_first).astype(np.int64)
        layers = [
            hidden_state(ids, types, layer, spec.dim).astype(np.float16) for layer in spec.layers
        ]
        packed = np.empty((ids.size, spec.code_bytes), np.uint8)
        pack_layers(layers, np.array([ids.size]), np.array([0]), packed, spec, calibration)
        codes.append(packed)
        offsets.append(offsets[-1] + ids.size)
    return PackedFeatures(np.concatenate(codes), np.array(offsets), spec)


def assert_same_codes(got: HostFeatures, expected: PackedFeatures) -> None:
    np.testing.assert_array_equal(got.offsets, expected.offsets)
    np.testing.assert_array_equal(got.codes, expected.codes)
