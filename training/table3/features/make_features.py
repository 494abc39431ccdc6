"""A task's stored layers, and the features that a recipe makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.pack import pack_layers
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec, LayerPooling, Quantization
from bitheads.export.calibrate import calibrate
from bitheads.export.config import BuildConfig
from bitheads.training.heads.layer_features import LayerFeatures
from bitheads.training.table3.features.recipe import Codes, Recipe

CHUNK_TOKENS = 4096
"""Tokens that are pooled at once, so that layers on disk never come into memory whole."""

ROTATION_SEED = 2020
TWO_BIT_QUANTILES = (1 / 3, 2 / 3)

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StoredLayers:
    """Hidden states of the real tokens of some texts.

    Attributes:
        values: float16 [tokens, layers, dim], in memory or on disk.
        offsets: int64 [texts + 1]; text i owns values[offsets[i]:offsets[i + 1]].
        layers: the hidden-state index of each layer, ascending.
        encoder_layers: of the encoder, without the embedding layer.
    """

    values: NDArray[np.float16]
    offsets: NDArray[np.int64]
    layers: tuple[int, ...]
    encoder_layers: int

    @property
    def dim(self) -> int:
        return int(self.values.shape[2])

    def chosen(self, start: int, stop: int, wanted: tuple[int, ...]) -> list[Floats]:
        """Some tokens' wanted layers, each float32 [tokens, dim]."""
        part = np.asarray(self.values[start:stop])
        columns = [self.layers.index(layer) for layer in wanted]
        return [np.ascontiguousarray(part[:, column], np.float32) for column in columns]


def make_features(
    stored: StoredLayers, recipe: Recipe, calibration: StoredLayers, seed: int = ROTATION_SEED
) -> PackedFeatures | LayerFeatures:
    """Codes as the engine would pack them, or with `learned` pooling all layers as they are.

    Args:
        calibration: the layers of texts that are none of the task's: codes that are stored once
            for all tasks can have no task's constants.
        seed: of the random rotations.
    """
    wanted = recipe.layers(stored.encoder_layers)
    if recipe.layer_pooling is LayerPooling.LEARNED:
        assert stored.layers == wanted, "all layers are stored where one recipe is learned"
        return LayerFeatures(stored.values, stored.offsets)
    transform = _Transform(calibration, wanted, recipe.codes, seed)
    spec = FeatureSpec(
        encoder="grid",
        weights_sha256="",
        layers=wanted,
        layer_pooling=recipe.layer_pooling,
        quantization=recipe.codes.quantization,
        order=recipe.codes.order,
        dim=transform.dim,
        calibration_sha256=None,
    )
    num_tokens = int(stored.offsets[-1])
    codes = np.empty((num_tokens, spec.code_bytes), np.uint8)
    for start in range(0, num_tokens, CHUNK_TOKENS):
        stop = min(start + CHUNK_TOKENS, num_tokens)
        layers = transform(stored.chosen(start, stop, wanted))
        pack_layers(
            [layer[None] for layer in layers],
            np.array([stop - start], np.int64),
            np.array([0], np.int64),
            codes[start:stop],
            spec,
            transform.calibration or Calibration(),
        )
    return PackedFeatures(codes, stored.offsets, spec, transform.calibration)


class _Transform:
    """What happens to a chunk's layers before they are packed.

    Attributes:
        dim: features that are packed.
        calibration: constants they are packed with.
    """

    def __init__(
        self, texts: StoredLayers, wanted: tuple[int, ...], codes: Codes, seed: int
    ) -> None:
        self.dim = texts.dim * codes.width
        self.calibration: Calibration | None = None
        self._codes = codes
        if codes in (Codes.FLOAT, Codes.SIGN, Codes.VOTE):
            return
        layers = texts.chosen(0, int(texts.offsets[-1]), wanted)
        if codes in (Codes.UINT8, Codes.CENTRED, Codes.MEDIAN):
            is_uint8 = codes is Codes.UINT8
            thresholds = {Codes.CENTRED: "mean", Codes.MEDIAN: "median"}.get(codes, "zero")
            quantization = Quantization.UINT8 if is_uint8 else Quantization.SIGN
            config = BuildConfig(encoder="", quantization=quantization, thresholds=thresholds)
            self.calibration = calibrate(config, texts.dim, layers)
            return
        pooled = _mean(layers)
        if codes is Codes.TWO_BIT:
            cuts = np.quantile(pooled, TWO_BIT_QUANTILES, axis=0).astype(np.float32)
            self.calibration = Calibration(thresholds=cuts.ravel())
            return
        self._center = pooled.mean(axis=0)
        if codes in (Codes.WIDE_RAW, Codes.WIDE_FLOAT):
            self._center = np.zeros_like(self._center)
        self._rotation = rotation(texts.dim, codes.width, seed)

    def __call__(self, layers: list[Floats]) -> list[Floats]:
        if self._codes is Codes.TWO_BIT:
            return [np.tile(_mean(layers), 2)]
        if self._codes.is_rotated:
            return [(_mean(layers) - self._center) @ self._rotation]
        return layers


def rotation(dim: int, width: int, seed: int) -> Floats:
    """`width` random rotations side by side, float32 [dim, width * dim]."""
    random = np.random.default_rng(seed)
    parts = [np.linalg.qr(random.standard_normal((dim, dim)))[0] for _ in range(width)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _mean(layers: list[Floats]) -> Floats:
    total = layers[0].copy()
    for layer in layers[1:]:
        total += layer
    total /= np.float32(len(layers))
    return total
