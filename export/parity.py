"""Building is verifying: the written graph against the source model, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bundle import graph_file
from engine.sessions import BACKENDS, is_installed, open_session, supports_bf16
from engine.types import Calibration, Quantization, TokenBatch
from export.calibrate import pool_layers
from export.config import MAX_RELATIVE_ERROR, MIN_SIGN_AGREEMENT, BuildConfig
from export.texts import real_tokens

MARGIN_BINS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Lower edges of |feature - threshold| over the feature's root mean square."""


@dataclass
class Comparison:
    """How features compare over all tokens seen so far.

    Attributes:
        total: signs by margin bin, int64 [bins]. flipped: those that differ.
        squared_error, squared: sums over features, for the relative error.
    """

    total: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(MARGIN_BINS), np.int64))
    flipped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(MARGIN_BINS), np.int64))
    max_abs_error: float = 0.0
    squared_error: float = 0.0
    squared: float = 0.0

    def add(
        self,
        got: NDArray[np.float32],
        expected: NDArray[np.float32],
        thresholds: NDArray[np.float32] | float,
    ) -> None:
        flips = (got > thresholds) != (expected > thresholds)
        rms = np.sqrt(np.mean(np.square(expected), axis=0)) + np.finfo(np.float32).tiny
        bins = np.searchsorted(MARGIN_BINS, np.abs(expected - thresholds) / rms, side="right") - 1
        self.total += np.bincount(bins.ravel(), minlength=len(MARGIN_BINS))
        self.flipped += np.bincount(bins[flips], minlength=len(MARGIN_BINS))
        error = (got - expected).astype(np.float64)
        self.max_abs_error = max(self.max_abs_error, float(np.abs(error).max(initial=0)))
        self.squared_error += float(np.square(error).sum())
        self.squared += float(np.square(expected, dtype=np.float64).sum())

    @property
    def agreement(self) -> float:
        """Share of signs that are equal."""
        return float(1 - self.flipped.sum() / max(1, self.total.sum()))

    @property
    def relative_error(self) -> float:
        """Root mean square of the error over that of the expected features."""
        return math.sqrt(self.squared_error / max(self.squared, np.finfo(np.float64).tiny))

    def to_json(self) -> dict[str, Any]:
        return {
            "sign_agreement": round(self.agreement, 6),
            "max_abs_error": float(f"{self.max_abs_error:.4g}"),
            "relative_error": float(f"{self.relative_error:.4g}"),
            "margin_histogram": {
                "lower_edges_rms": list(MARGIN_BINS),
                "signs": self.total.tolist(),
                "flipped": self.flipped.tolist(),
            },
        }


def available_sessions(int8: bool = False) -> list[tuple[str, str]]:
    """(backend, precision) of every session this machine can open.

    Args:
        int8: whether the graph is there in int8, too.
    """
    found = []
    for backend in BACKENDS:
        if is_installed(backend):
            found.append((backend, "fp32"))
            if supports_bf16(backend):
                found.append((backend, "bf16"))
            if int8 and backend == "openvino":
                found.append((backend, "int8"))
    return found


def compare_session(
    folder: Path,
    layers: Sequence[int],
    backend: str,
    precision: str,
    batches: Sequence[TokenBatch],
    expected: Sequence[Sequence[NDArray[np.float32]]],
    calibration: Calibration | None,
    layer_weights: Sequence[float] | None,
) -> dict[str, Any]:
    """One session's hidden states against the source model's.

    Args:
        folder: where the graph is, as in a bundle.
        expected: for each batch and layer, float32 [tokens, dim], from the source model.

    Returns the session's part of the parity report: each layer and the layer pooling, with max
    abs error, relative error, sign agreement and margin histogram. "pooled" is what is stored:
    its signs are taken against the spec's thresholds.
    """
    names = [f"hidden_{layer}" for layer in layers]
    session = open_session(folder / graph_file(precision), names, backend, precision)
    by_layer = [Comparison() for _ in layers]
    pooled = Comparison()
    thresholds: NDArray[np.float32] | float = 0.0
    if calibration is not None and calibration.thresholds is not None:
        thresholds = calibration.thresholds
    for batch, batch_expected in zip(batches, expected, strict=True):
        got = [real_tokens(hidden, batch) for hidden in session.run(batch)]
        for counts, layer_got, layer_expected in zip(by_layer, got, batch_expected, strict=True):
            counts.add(layer_got, layer_expected, 0.0)
        pooled.add(
            pool_layers(got, layer_weights),
            pool_layers(batch_expected, layer_weights),
            thresholds,
        )
    return {
        "pooled": pooled.to_json(),
        "layers": {name: counts.to_json() for name, counts in zip(names, by_layer, strict=True)},
    }


def failures(report: Mapping[str, Any], config: BuildConfig) -> list[str]:
    """A sentence for each session that is too far from the source model.

    Signs are held to the sign agreement, uint8 and float16 codes to the relative error.
    """
    found = []
    for name, result in report["sessions"].items():
        precision = name.split()[1]
        pooled = result["pooled"]
        worst, layer = max(result["layers"].items(), key=lambda item: item[1]["relative_error"])
        where = f"; the worst layer is {worst}, relative error {layer['relative_error']:.2%}"
        if config.quantization is Quantization.SIGN:
            at_least = MIN_SIGN_AGREEMENT[precision]
            if config.min_sign_agreement is not None:
                at_least = config.min_sign_agreement
            if pooled["sign_agreement"] < at_least:
                found.append(
                    f"{name}: {pooled['sign_agreement']:.3%} of signs agree with torch in fp32, "
                    f"expected at least {at_least:.2%}{where}"
                )
        else:
            at_most = MAX_RELATIVE_ERROR[precision]
            if config.max_relative_error is not None:
                at_most = config.max_relative_error
            if not pooled["relative_error"] <= at_most:
                found.append(
                    f"{name}: features differ from torch in fp32 by {pooled['relative_error']:.2%} "
                    f"in the root mean square, expected at most {at_most:.2%}{where}"
                )
    return found
