"""Per-feature constants from real texts: sign thresholds and uint8 scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.bundle import load_calibration
from bitheads.engine.features.reference import pooled_mean
from bitheads.engine.features.spec import Calibration, Quantization
from bitheads.export.config import BuildConfig
from bitheads.export.errors import ExportError

UINT8_STEPS = 255


def calibrate(
    config: BuildConfig, dim: int, layers: Sequence[NDArray[np.float32]]
) -> Calibration | None:
    """The constants the config asks for, or None if its codes need none.

    Args:
        layers: the source model's hidden states, each float32 [tokens, dim].
    """
    if config.thresholds not in ("zero", "mean", "median"):
        return _read(config, dim)
    pooled = pool_layers(layers, config.layer_weights)
    if config.quantization is Quantization.UINT8:
        return _uint8_range(pooled)
    if config.quantization is Quantization.SIGN and config.thresholds != "zero":
        center = np.mean if config.thresholds == "mean" else np.median
        return Calibration(thresholds=center(pooled, axis=0).astype(np.float32))
    return None


def pool_layers(
    layers: Sequence[NDArray[np.float32]], weights: Sequence[float] | None
) -> NDArray[np.float32]:
    """Mean or weighted sum over layers, in ascending order: float32 [tokens, dim]."""
    return pooled_mean(layers, None if weights is None else np.array(weights, np.float32))


def _uint8_range(pooled: NDArray[np.float32]) -> Calibration:
    """Scale and zero point that map each feature's seen range onto 0 to 255.

    Zero is always in the range, so it is represented exactly (the paper's Section 5 uses
    PyTorch's observers, which do the same).
    """
    low = np.minimum(pooled.min(axis=0), 0)
    high = np.maximum(pooled.max(axis=0), 0)
    scale = np.maximum((high - low) / UINT8_STEPS, np.finfo(np.float32).tiny).astype(np.float32)
    return Calibration(scale=scale, zero_point=np.rint(-low / scale).astype(np.float32))


def _read(config: BuildConfig, dim: int) -> Calibration:
    path = Path(config.thresholds)
    if not path.is_file():
        raise ExportError(
            f"--thresholds: got {config.thresholds!r}, expected zero, mean, median, or the "
            "calibration.safetensors of another bundle."
        )
    calibration = load_calibration(path, dim)
    kind = "scale" if config.quantization is Quantization.UINT8 else "thresholds"
    if kind not in calibration.arrays():
        raise ExportError(
            f"--thresholds {path}: holds {sorted(calibration.arrays())}, expected {kind} for "
            f"--quantization {config.quantization.value}."
        )
    return calibration
