"""Building is verifying: the written graph against transformers' model, layer by layer.

The sentences are held to their average. Odd texts are few and short, so each is held to the bound
by itself, with room for chance.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.bundle import graph_file
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.features.spec import Calibration, Quantization
from bitheads.engine.sessions import available_ways, open_session
from bitheads.engine.types import PlacedBatch
from bitheads.export.calibrate import pool_layers
from bitheads.export.comparison.compared_texts import ComparedTexts
from bitheads.export.config import (
    MAX_RELATIVE_ERROR,
    MIN_COSINE,
    MIN_SIGN_AGREEMENT,
    BuildConfig,
)
from bitheads.export.texts import real_tokens

MARGIN_BINS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Lower edges of |feature - threshold| over the feature's root mean square."""

ONE_TEXT, DEVIATIONS = 2.0, 3.0
"""Room of a single text: times the share of other signs, or the error, that all texts may have
together, and standard deviations of the number of signs more. Of the 640 signs of a short text in a
tiny encoder 3 may differ in fp32, where 99.9% have to agree. Of a text that is read otherwise than
in transformers, several of a hundred differ."""


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


def available_sessions(quantized: Collection[str] = ()) -> list[tuple[str, str]]:
    """(backend, precision) of every session this machine can open.

    Args:
        quantized: those of engine.bundle.QUANTIZED_GRAPHS that are there, too.
    """
    return available_ways(quantized)


def compare_session(
    folder: Path,
    layers: Sequence[int],
    backend: str,
    precision: str,
    sentences: ComparedTexts,
    odd: ComparedTexts,
    calibration: Calibration | None,
    layer_weights: Sequence[float] | None,
    graph: str | None = None,
    embedder: Embedder | None = None,
) -> dict[str, Any]:
    """One session's hidden states against the source model's.

    Args:
        folder: where the graph is, as in a bundle.
        sentences: counted together.
        odd: counted one by one.
        graph: its file, if it is another than the one for this precision.
        embedder: of the bundle's embeddings, which are of the last layer; None: it has none.

    Returns the session's part of the parity report: each layer and the layer pooling, with max
    abs error, relative error, sign agreement and margin histogram. "pooled" is what is stored:
    its signs are taken against the spec's thresholds. "odd_texts" are of the pooled layers, too.
    "embedding", where there is one, has the cosines with the source's over all texts.
    """
    names = [f"hidden_{layer}" for layer in layers]
    file = graph_file(precision) if graph is None else graph
    session = open_session(folder / file, names, backend, precision)
    by_layer = [Comparison() for _ in layers]
    pooled = Comparison()
    thresholds: NDArray[np.float32] | float = 0.0
    if calibration is not None and calibration.thresholds is not None:
        thresholds = calibration.thresholds
    cosines: list[NDArray[np.float32]] = []

    def run(texts: ComparedTexts, batch: PlacedBatch) -> list[NDArray[np.float32]]:
        layers_of_batch = session.run(batch.tokens)
        if embedder is not None and texts.embeddings is not None:
            made = embedder(layers_of_batch[-1], batch.tokens.lengths)
            cosines.append(_cosines(made, texts.embeddings[batch.texts]))
        return [real_tokens(hidden, batch.tokens.lengths) for hidden in layers_of_batch]

    for batch in sentences.batches:
        got = run(sentences, batch)
        expected = sentences.expected(batch)
        for counts, layer_got, layer_expected in zip(by_layer, got, expected, strict=True):
            counts.add(layer_got, layer_expected, 0.0)
        pooled.add(
            pool_layers(got, layer_weights), pool_layers(expected, layer_weights), thresholds
        )
    one_by_one = {}
    for batch in odd.batches:
        got = run(odd, batch)
        pooled_got = pool_layers(got, layer_weights)
        pooled_expected = pool_layers(odd.expected(batch), layer_weights)
        start = 0
        for text, length in zip(batch.texts, batch.tokens.lengths, strict=True):
            rows = slice(start, start := start + length)
            counts = Comparison()
            counts.add(pooled_got[rows], pooled_expected[rows], thresholds)
            one_by_one[odd.names[text]] = {
                "signs": int(counts.total.sum()),
                "flipped": int(counts.flipped.sum()),
                "relative_error": float(f"{counts.relative_error:.4g}"),
            }
    report = {
        "pooled": pooled.to_json(),
        "layers": {name: counts.to_json() for name, counts in zip(names, by_layer, strict=True)},
        "odd_texts": one_by_one,
    }
    if cosines:
        of_all = np.concatenate(cosines)
        report["embedding"] = {
            "least_cosine": float(f"{of_all.min():.6g}"),
            "mean_cosine": float(f"{of_all.mean():.6g}"),
        }
    return report


def _cosines(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each with its own; 1 where both are 0, and 0 for what is no number."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    cosines = (vectors * others).sum(axis=1) / np.maximum(lengths, np.float32(1e-12))
    cosines[~vectors.any(axis=1) & ~others.any(axis=1)] = 1
    found: NDArray[np.float32] = np.nan_to_num(cosines, nan=0.0)
    return found


def failures(report: Mapping[str, Any], config: BuildConfig) -> list[str]:
    """A sentence for each session that is too far from the source model.

    Signs are held to the sign agreement, uint8 and float16 codes to the relative error.
    """
    found = []
    for name, result in report["sessions"].items():
        precision = name.split()[1]
        pooled = result["pooled"]
        if "embedding" in result and result["embedding"]["least_cosine"] < MIN_COSINE[precision]:
            found.append(
                f"{name}: a text's embedding has a cosine of "
                f"{result['embedding']['least_cosine']} with that of torch in fp32, expected at "
                f"least {MIN_COSINE[precision]}; without embeddings: --embedding none"
            )
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
            found += _odd_signs(name, result["odd_texts"], at_least)
        else:
            at_most = MAX_RELATIVE_ERROR[precision]
            if config.max_relative_error is not None:
                at_most = config.max_relative_error
            if not pooled["relative_error"] <= at_most:
                found.append(
                    f"{name}: features differ from torch in fp32 by {pooled['relative_error']:.2%} "
                    f"in the root mean square, expected at most {at_most:.2%}{where}"
                )
            found += _odd_errors(name, result["odd_texts"], at_most)
    return found


def _odd_signs(session: str, texts: Mapping[str, Any], at_least: float) -> list[str]:
    """A sentence for the worst of the texts whose signs are too far from the source model's."""
    beyond = {}
    for name, text in texts.items():
        share = max(0.0, 1 - at_least) * text["signs"]
        allowed = ONE_TEXT * share + DEVIATIONS * math.sqrt(share)
        if text["flipped"] > allowed:
            beyond[name] = (text["flipped"] / text["signs"], allowed / text["signs"])
    if not beyond:
        return []
    worst, (flipped, allowed) = max(beyond.items(), key=lambda item: item[1][0])
    return [
        f"{session}: {1 - flipped:.3%} of the signs of one text agree with torch in fp32: {worst}. "
        f"Expected at least {1 - allowed:.2%} of each ({len(beyond)} of {len(texts)} odd texts "
        "have fewer)"
    ]


def _odd_errors(session: str, texts: Mapping[str, Any], at_most: float) -> list[str]:
    """A sentence for the worst of the texts whose features are too far from the source model's."""
    errors = {name: text["relative_error"] for name, text in texts.items()}
    beyond = {name: error for name, error in errors.items() if not error <= ONE_TEXT * at_most}
    if not beyond:
        return []
    worst = max(beyond, key=beyond.__getitem__)
    return [
        f"{session}: features of one text differ from torch in fp32 by {beyond[worst]:.2%} in the "
        f"root mean square: {worst}. Expected at most {ONE_TEXT * at_most:.2%} of each "
        f"({len(beyond)} of {len(texts)} odd texts have more)"
    ]
