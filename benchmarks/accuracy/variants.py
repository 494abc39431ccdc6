"""What heads are trained on here: kinds of features, each an engine of the same encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy import precisions
from bitheads import Engine
from bitheads.engine.features.spec import LayerPooling, PositionPooling, Quantization
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.training.heads.config import FitConfig

SIGNS = "signs"
EMBEDDING = "last_layer_mean"
"""The usual sentence embedding: with the mean over the tokens, of a head too."""

LEARNING_RATES = (3e-4, 1e-3)
"""Rates of which the better on dev is kept, for each kind of features: they differ in scale."""

_BUILDS = {
    SIGNS: BuildConfig(),
    "uint8": BuildConfig(quantization=Quantization.UINT8),
    "float16": BuildConfig(quantization=Quantization.FLOAT16),
    EMBEDDING: BuildConfig(layer_pooling=LayerPooling.LAST, quantization=Quantization.FLOAT16),
}


@dataclass(frozen=True, eq=False)
class Variant:
    """Features: the bundle that makes them, and how heads are trained on them."""

    bundle: Path
    engine: Engine
    fit: FitConfig


def variants(
    encoder: str, names: Sequence[str], scratch: Path, say: Callable[[str], None]
) -> dict[str, Variant]:
    """By name, without heads.

    Args:
        names: of _BUILDS.
        scratch: a folder for the bundles.
    """
    no_heads = scratch / "no-heads"
    no_heads.mkdir(exist_ok=True)
    made = {}
    for name in names:
        folder = scratch / f"bundle-{name}"
        # Signs are measured at every precision, too.
        precision = precisions.build_precision() if name == SIGNS else "fp16"
        config = replace(_BUILDS[name], encoder=encoder, precision=precision, output=folder)
        make_bundle(replace(config, heads=no_heads), say)
        pooling = PositionPooling.MEAN if name == EMBEDDING else PositionPooling.ATTENTION
        made[name] = Variant(folder, Engine.load(folder), FitConfig(position_pooling=pooling))
    return made
