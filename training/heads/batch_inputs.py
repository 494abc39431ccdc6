"""What heads read of a batch of texts: their codes unpacked, padded to the longest."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bitheads.engine.features.codes import code_affine, unpack
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Quantization
from bitheads.training.heads.layer_features import LayerFeatures
from bitheads.training.heads.pair_features import Codes, PairFeatures

CPU = torch.device("cpu")

Features = Codes | LayerFeatures
"""Features that a head can be trained on."""

SIGNS_OF_BYTES = (
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1
)
"""float32 [256, 8]."""


def inputs_of(
    features: Features, rows: NDArray[np.int64], device: torch.device = CPU
) -> tuple[torch.Tensor, ...]:
    """What a head reads of some texts, or pairs: `padded`, and of pairs which texts they are."""
    if not isinstance(features, PairFeatures):
        return padded(features, rows, device)
    texts, places = np.unique(features.pairs[rows], return_inverse=True)
    pairs = torch.from_numpy(places.reshape(-1, 2)).to(device)
    return (*padded(features.texts, texts, device), pairs)


def padded(
    features: PackedFeatures | LayerFeatures, rows: NDArray[np.int64], device: torch.device = CPU
) -> tuple[torch.Tensor, torch.Tensor]:
    """Some texts' features, float32 [rows, tokens, dim], and the mask of the real tokens.

    The features of LayerFeatures are float32 [rows, tokens, layers, dim].
    """
    counts = features.num_tokens[rows]
    positions = np.arange(counts.max())
    mask = positions < counts[:, None]
    # Padding repeats the first token's code; the mask keeps it out of everything.
    tokens = features.offsets[rows][:, None] + np.where(mask, positions, 0)
    if isinstance(features, LayerFeatures):
        layers = torch.from_numpy(features.values[tokens.ravel()]).to(device).float()
        return layers.reshape(*tokens.shape, *layers.shape[1:]), torch.from_numpy(mask).to(device)
    codes = features.codes[tokens.ravel()]
    if features.spec.quantization is Quantization.SIGN:
        # A byte's eight signs at a time: as fast as reading them.
        numbers = torch.from_numpy(SIGNS_OF_BYTES[codes]).view(*tokens.shape, -1)
        unpacked = numbers[..., : features.spec.dim]
    else:
        scale, offset = code_affine(features.spec, features.calibration)
        quantization = features.spec.quantization.value
        values = unpack(codes, features.spec.dim, quantization, scale, offset)
        unpacked = torch.from_numpy(values.reshape(*tokens.shape, -1))
    return unpacked.to(device), torch.from_numpy(mask).to(device)
