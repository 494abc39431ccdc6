"""Model types that transformers has go through the whole build, and come out as it computes them.

Every type in fp16 and fp32 is for `make test-long`; what matters most and one in twelve, in fp16,
for all.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from odd_encoders import share_of_all_signs

from benchmarks.inputs.model_types import REFUSED, TEXTS, TYPES, num_layers, save_encoder
from bitheads.engine.bundle import read_manifest
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError
from bitheads.export.make_bundle import make_bundle
from bitheads.export.source.encoder import load_encoder

ALWAYS = ("bert", "roberta", "mpnet", "modernbert")
OTHERS = [name for name in TYPES if name not in ALWAYS]
SHORT = {(name, "fp16") for name in (*ALWAYS, *OTHERS[::12])}
BUILDS = [
    pytest.param(name, precision, marks=() if (name, precision) in SHORT else pytest.mark.long)
    for name in TYPES
    for precision in ("fp16", "fp32")
]

SIGNS = {"fp32": 0.999, "fp16": 0.997}
"""Share of the texts' signs that are transformers' own, at least."""


@pytest.mark.parametrize(("model_type", "precision"), BUILDS)
def test_a_type_is_as_transformers_computes_it(
    model_type: str, precision: str, few_texts: Path, tmp_path: Path
) -> None:
    source = save_encoder(model_type, TYPES[model_type], tmp_path / "source")
    output = tmp_path / "bundle"
    config = BuildConfig(
        encoder=str(source),
        calibration=few_texts,
        output=output,
        precision=precision,
        layers=f"{num_layers(model_type) - 1}-{num_layers(model_type)}",
        # bfloat16 rounds coarsely, and random weights are hard on it; looked at below is float32.
        min_sign_agreement=0.99,
    )
    make_bundle(config)
    manifest = read_manifest(output)
    assert manifest.encoder.model_type == model_type
    # It was looked at in float16 arithmetic.
    assert ("float16" in manifest.parity) == (precision == "fp16")
    texts = TEXTS + [("a pair", "of two texts")] * (manifest.encoder.token_types == 2)
    assert share_of_all_signs(source, output, texts) >= SIGNS[precision]


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_type_without_features_of_tokens_is_refused(model_type: str, tmp_path: Path) -> None:
    values, message = REFUSED[model_type]
    source = save_encoder(model_type, values, tmp_path / "source")
    with pytest.raises(ExportError, match=message):
        load_encoder(str(source))
