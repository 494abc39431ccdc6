"""What float16 cannot hold of an encoder: found in the graph's own arithmetic, kept in float32.

Backends of a CPU compute a float16 graph in float32 or bfloat16; a GPU does not. So the graph is
computed as its types say (export.graph_arithmetic) on some of the calibration texts. If a number
comes near the end of float16, or too many signs change, the encoder is traced in float32, and of
that graph the products go to float16 whose numbers fit (export.mixed_graph).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bitheads.engine.batching import pad_batch
from bitheads.engine.features.spec import Calibration, Quantization
from bitheads.engine.texts.tokenize import Tokens
from bitheads.engine.types import TokenBatch
from bitheads.export.calibrate import pool_layers
from bitheads.export.comparison.compared_texts import ComparedTexts
from bitheads.export.comparison.parity import Comparison
from bitheads.export.config import MAX_RELATIVE_ERROR, MIN_SIGN_AGREEMENT, BuildConfig
from bitheads.export.errors import ExportError, first_line
from bitheads.export.graph_arithmetic import GraphArithmetic
from bitheads.export.mixed_graph import LARGEST, LARGEST_WEIGHT, PRODUCTS, lower
from bitheads.export.onnx_graph import modules_of, save_graph, trace
from bitheads.export.source.encoder import Encoder
from bitheads.export.texts import real_tokens

Say = Callable[[str], None]

MAX_TOKENS, LONGEST = 512, 64
"""Tokens that are computed so, padding included, and of one text: NumPy's float16 is slow."""

SQUARED = {"Pow", "ReduceMean", "ReduceSum"}
"""Operators of normalizations, which make larger numbers than what is normalized."""

MASKED = 1e30
"""Magnitude of what is no number of the encoder but a mask: the lowest of float32."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Some texts in one batch, and transformers' hidden states: float32 [tokens, dim] by layer."""

    batch: TokenBatch
    expected: list[NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Look:
    """What a graph computed.

    Attributes:
        weights, magnitudes: of each constant, and of each tensor that is made, of the type that was
            looked at, the largest magnitude; not finite if it has a number that is not.
        hidden: the graph's outputs, [rows, seq, dim].
    """

    weights: dict[str, float]
    magnitudes: dict[str, float]
    hidden: list[NDArray[Any]]

    @property
    def fits(self) -> bool:
        """Whether float16 holds all of it, with room."""
        return all(most <= LARGEST_WEIGHT for most in self.weights.values()) and all(
            most <= LARGEST for most in self.magnitudes.values()
        )

    @property
    def all(self) -> dict[str, float]:
        """Magnitudes of both, weights first."""
        return {**self.weights, **self.magnitudes}


def keep_in_range(
    files: list[Path],
    encoder: Encoder,
    layers: tuple[int, ...],
    compared: Sequence[ComparedTexts],
    calibration: Calibration | None,
    config: BuildConfig,
    say: Say = lambda message: None,
) -> tuple[list[Path], dict[str, Any]]:
    """Replaces a float16 graph that cannot hold its numbers by one that keeps them in float32.

    Args:
        files: the graph, as `export_graph` wrote it.
        compared: sentences, and odd texts, which are short.

    Returns the files it takes now, and the parity report's part "float16".

    Raises ExportError if that graph, too, is too far from transformers in its own arithmetic.
    """
    texts = choose_texts(compared, encoder.pad_id)
    try:
        found = look(onnx.load(files[0]), texts.batch, np.float16)
    except Exception as error:  # whatever ONNX's reference raises for what it does not compute
        say(f"float16 arithmetic is not looked at: ONNX's reference fails ({first_line(error)})")
        return files, {}
    counts = compare(found, texts, calibration, config)
    if found.fits and is_close(counts, config):
        return files, _report(found, counts, texts)

    model = trace(encoder, layers, "fp32")
    modules = modules_of(model)
    in_float32 = look(model, texts.batch, np.float32)
    beyond = _beyond(in_float32, model, modules)
    say(f"float16 arithmetic: {_why(beyond, found)}; the graph keeps what needs it in float32")
    kept = lower(model, in_float32.all)
    found = look(model, texts.batch, np.float16)
    counts = compare(found, texts, calibration, config)
    if not is_close(counts, config):
        where = where_lost(in_float32, modules) or where_lost(found, modules)
        lost = f" The first number that is NaN or infinite is in {where}." if where else ""
        raise ExportError(
            "the graph does not match its source in float16 arithmetic, with float32 for what "
            f"leaves it: {counts.agreement:.3%} of signs agree with torch in fp32, the relative "
            f"error is {counts.relative_error:.2%}.{lost} Nothing was written. Use --precision "
            "fp32, or if you accept this, --min-sign-agreement (signs), --max-relative-error "
            "(uint8, float16)."
        )
    report = _report(found, counts, texts)
    report["beyond"] = {name: float(f"{most:.3g}") for name, most in beyond.items()}
    report["float32_products"] = sorted({modules[node.output[0]] for node in kept})
    for file in files:
        file.unlink()
    return save_graph(model, files[0]), report


def choose_texts(compared: Sequence[ComparedTexts], pad_id: int) -> Texts:
    """Some of the texts, of all lengths, as many as there is room for; the shortest at least."""
    found = [
        (int(batch.tokens.lengths[row]), of_one, batch, row)
        for of_one in compared
        for batch in of_one.batches
        for row in range(len(batch.texts))
    ]
    found.sort(key=lambda text: text[0])
    within = [text for text in found if text[0] <= LONGEST] or found[:1]
    count = max(1, min(len(within), MAX_TOKENS // within[-1][0]))
    chosen = [within[int(i)] for i in np.linspace(len(within) - 1, 0, count)]
    tokens, expected = [], []
    for length, of_one, batch, row in chosen:
        ids = batch.tokens.input_ids[row, :length].astype(np.int32)
        second = int(batch.tokens.token_type_ids[row, :length].sum())
        tokens.append(Tokens(ids, length - second, truncated=False))
        start = int(batch.token_offsets[row])
        expected.append([layer[start : start + length] for layer in of_one.layers])
    layers = [np.concatenate(of_layer) for of_layer in zip(*expected, strict=True)]
    return Texts(pad_batch(tokens, pad_id), layers)


def look(model: onnx.ModelProto, batch: TokenBatch, dtype: type[np.floating[Any]]) -> Look:
    """Computes a graph by its own types; looks at the tensors of one type, and at all weights."""
    arithmetic = GraphArithmetic(model)
    weights: dict[str, float] = {}
    magnitudes: dict[str, float] = {}
    outputs: dict[str, NDArray[Any]] = {}

    def see(name: str, values: NDArray[Any], seen: dict[str, float]) -> None:
        if values.dtype == dtype:
            seen[name] = largest(values)

    for constant in model.graph.initializer:
        see(constant.name, arithmetic.constant(constant.name), weights)
    names = [port.name for port in model.graph.output]
    inputs = {port.name: getattr(batch, port.name) for port in model.graph.input}
    for _, made in arithmetic.run(inputs):
        for name, values in made.items():
            see(name, values, magnitudes)
            if name in names:
                outputs[name] = values
    return Look(weights, magnitudes, [outputs[name] for name in names])


def largest(values: NDArray[Any]) -> float:
    """The largest magnitude of float16 or float32 numbers, NaN above all; 0 if there are none.

    By their bits, of which the first is the sign: NumPy compares float16 one by one.
    """
    dtype = values.dtype
    bits = np.ascontiguousarray(values).view(f"u{dtype.itemsize}")
    without_sign = bits & np.array((1 << 8 * dtype.itemsize - 1) - 1, bits.dtype)
    return float(without_sign.max(initial=0).view(dtype))


def compare(
    found: Look, texts: Texts, calibration: Calibration | None, config: BuildConfig
) -> Comparison:
    """The pooled layers beside transformers'."""
    got = [real_tokens(hidden, texts.batch.lengths) for hidden in found.hidden]
    thresholds: NDArray[np.float32] | float = 0.0
    if calibration is not None and calibration.thresholds is not None:
        thresholds = calibration.thresholds
    counts = Comparison()
    with np.errstate(invalid="ignore"):  # infinities
        counts.add(
            pool_layers(got, config.layer_weights),
            pool_layers(texts.expected, config.layer_weights),
            thresholds,
        )
    return counts


def is_close(counts: Comparison, config: BuildConfig) -> bool:
    """Whether codes are as close to transformers' as they must be in bfloat16, or less if asked."""
    if config.quantization is Quantization.SIGN:
        at_least = MIN_SIGN_AGREEMENT["bf16"]
        return counts.agreement >= min(at_least, config.min_sign_agreement or at_least)
    at_most = MAX_RELATIVE_ERROR["bf16"]
    return counts.relative_error <= max(at_most, config.max_relative_error or at_most)


def _report(found: Look, counts: Comparison, texts: Texts) -> dict[str, Any]:
    """Of a graph's own arithmetic, in JSON."""
    seen = counts.to_json()
    return {
        "tokens": int(texts.batch.lengths.sum()),
        "largest": float(f"{max(found.magnitudes.values(), default=0.0):.4g}"),
        "sign_agreement": seen["sign_agreement"],
        "relative_error": seen["relative_error"],
    }


def _beyond(found: Look, model: onnx.ModelProto, modules: Mapping[str, str]) -> dict[str, float]:
    """Modules whose numbers leave float16, with the largest of each.

    Without masks, and without squares and their sums, which are float32 in any graph.
    """
    beyond: dict[str, float] = {}

    def add(name: str, magnitude: float, most: float) -> None:
        if most < magnitude < MASKED:
            module = modules.get(name, name)
            beyond[module] = max(beyond.get(module, 0.0), magnitude)

    for name, magnitude in found.weights.items():
        add(name, magnitude, LARGEST_WEIGHT)
    squares: set[str] = set()
    for node in model.graph.node:
        reads = [name for name in node.input if name in found.magnitudes]
        is_square = node.op_type in SQUARED or (len(reads) == 2 and reads[0] == reads[1])
        is_of_squares = reads and node.op_type not in PRODUCTS and squares.issuperset(reads)
        if is_square or is_of_squares:
            squares.update(node.output)
            continue
        for name in node.output:
            add(name, found.magnitudes.get(name, 0.0), LARGEST)
    return beyond


def _why(beyond: Mapping[str, float], in_half: Look) -> str:
    if beyond:
        first, magnitude = next(iter(beyond.items()))
        others = f" and {len(beyond) - 1} modules more" if len(beyond) > 1 else ""
        return f"no room for {first} (up to {magnitude:.2g}){others}"
    if in_half.fits:
        return "too many signs change"
    return "the graph has its largest number, as a mask or a limit"


def where_lost(found: Look, modules: Mapping[str, str]) -> str | None:
    """The module of the first number that is NaN or infinite, if such a number gets to the end."""
    if all(np.isfinite(hidden).all() for hidden in found.hidden):
        return None
    for name, most in found.all.items():
        if not np.isfinite(most):
            return modules.get(name.removesuffix("_fp16"), name)
    return None
