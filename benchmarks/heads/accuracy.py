"""How far the native kernels are from a float64 evaluation of the same heads on the same codes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.tasks import TASKS
from benchmarks.contenders.native_heads import NativeCall, fastest_level
from benchmarks.figures.rounding import rounded
from benchmarks.heads.cases import Settings
from benchmarks.inputs.random_heads import random_codes, random_heads, spec_of
from benchmarks.inputs.texts import demo_texts
from bitheads.engine import Engine, bundle
from bitheads.engine.errors import InputError
from bitheads.engine.features.codes import unpack
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import PositionPooling, Quantization
from bitheads.engine.heads.cpu import HeadThreads, lay_out
from bitheads.engine.heads.head import is_of_words, predictions_of
from bitheads.engine.heads.head_file import SUFFIX, FoldedHead, read_head
from bitheads.engine.heads.two_texts_reference import combine_texts
from bitheads.engine.texts.forms import are_pairs, fit, reads_apart
from bitheads.engine.types import Text
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.data.tasks import file_of

Say = Callable[[str], None]
Float64 = NDArray[np.float64]


def evaluate(features: PackedFeatures, head: FoldedHead) -> Float64:
    """The head's outputs in float64, [texts, outputs], as engine/heads/head_file.py says; of the
    form two_texts the texts' vectors."""
    spec = features.spec
    ones, zeros = np.ones(spec.dim, np.float32), np.zeros(spec.dim, np.float32)
    wide = {name: array.astype(np.float64) for name, array in head.tensors.items()}
    outputs = np.empty((len(features), head.num_text_outputs))
    for text, (start, stop) in enumerate(pairwise(features.offsets.tolist())):
        packed = features.codes[start:stop]
        codes = unpack(packed, spec.dim, spec.quantization.value, ones, zeros)
        inner = _pool(codes.astype(np.float64), head.position_pooling, wide)
        hidden = np.tanh(wide["dense"] @ inner + wide["dense_bias"])
        outputs[text] = wide["output"] @ hidden + wide["output_bias"]
    return outputs


def evaluate_pairs(features: PackedFeatures, head: FoldedHead, pairs: NDArray[np.int64]) -> Float64:
    """A head of the form two_texts on pairs of texts, int64 [pairs, 2], in float64 but for the
    codes that its half for pairs reads: those are bytes, as kernels/SPEC.md has it."""
    half = head.pair
    assert half is not None, "asked of heads of the form two_texts"
    codes = combine_texts(evaluate(features, head).astype(np.float32), pairs).astype(np.float64)
    hidden = np.tanh(codes @ half.dense.T.astype(np.float64) + half.dense_bias)
    outputs: Float64 = hidden @ half.output.T.astype(np.float64) + half.output_bias
    return outputs


def _pool(codes: Float64, pooling: PositionPooling, weights: dict[str, Float64]) -> Float64:
    if pooling is PositionPooling.CLS:
        first: Float64 = codes[0]
        return first
    if pooling is PositionPooling.LAST:
        last: Float64 = codes[-1]
        return last
    if pooling is PositionPooling.MEAN:
        mean: Float64 = codes.mean(axis=0)
        return mean
    attention = softmax(weights["query"] @ codes.T)
    heads, dim = weights["query"].shape
    value = weights["value"].reshape(heads, dim // heads, dim)
    projected: Float64 = np.einsum("hdk,hk->hd", value, attention @ codes).ravel()
    return projected


def softmax(scores: Float64) -> Float64:
    """Over the last axis."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Float64 = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def compare(features: PackedFeatures, head: FoldedHead) -> dict[str, Any]:
    """Native probabilities, and the labels chosen, against those of logits in float64."""
    read = features.of_words() if is_of_words(head) else features
    call = NativeCall(read, [lay_out(head)], fastest_level())
    call()
    return _differences(features, head, call.logits[0], evaluate(read, head))


def compare_pairs(
    features: PackedFeatures, head: FoldedHead, pairs: NDArray[np.int64]
) -> dict[str, Any]:
    """The same of a head of the form two_texts, on pairs of texts, int64 [pairs, 2]."""
    laid_out = [lay_out(head)]
    with HeadThreads(1) as threads:
        vectors = threads.text_vectors(features, laid_out)
        (got,) = threads.pair_outputs(vectors, pairs, laid_out)
    return _differences(features, head, got, evaluate_pairs(features, head, pairs))


def _differences(
    features: PackedFeatures, head: FoldedHead, outputs: NDArray[np.float32], exact: Float64
) -> dict[str, Any]:
    got = predictions_of([head], [outputs], features.words)[head.task]
    expected = predictions_of([head], [exact.astype(np.float32)], features.words)[head.task]
    differences = np.abs(got.probabilities - expected.probabilities)
    return {
        "texts": len(features) if head.pair is None else len(outputs),
        "tokens": int(features.offsets[-1]),
        "max_probability_difference": rounded(float(differences.max(initial=0)), 3),
        "same_top_label": float((got.has_label == expected.has_label).all(axis=1).mean()),
    }


def shipped(bundle_folder: Path, data: Path | None, say: Say) -> dict[str, Any]:
    """Every head of a bundle on its test file, or without `data` on those of the demo's texts that
    it answers."""
    texts_of = _test_texts(data) if data is not None else _fitting_demo_texts
    found = {}
    with Engine.load(bundle_folder) as engine:
        for path in sorted((bundle_folder / bundle.HEADS).glob(f"*{SUFFIX}")):
            head = read_head(path)
            if texts := texts_of(head):
                found[head.task] = _compare_on(texts, head, engine)
                say(f"  {head.task}: {found[head.task]}")
    if not found:
        raise InputError(
            f"--bundle {bundle_folder}: has no shipped heads to compare. Build it with "
            "`bitheads build --precision fp16`."
        )
    return found


def _compare_on(texts: list[Text], head: FoldedHead, engine: Engine) -> dict[str, Any]:
    if not reads_apart(head):
        return compare(engine.encode(texts, words=is_of_words(head)), head)
    apart = [text for pair in texts for text in pair]
    pairs = np.arange(len(apart), dtype=np.int64).reshape(-1, 2)
    return compare_pairs(engine.encode(apart), head, pairs)


def random(settings: Settings) -> dict[str, Any]:
    """The same for random heads on random codes, which need no encoder."""
    found = {}
    for name, shape in settings.encoders.items():
        for quantization in (Quantization.SIGN, Quantization.UINT8):
            spec = spec_of(shape, quantization)
            (head,) = random_heads(spec, shape.attention_heads, 1)
            found[f"{name}, {quantization}"] = compare(random_codes(spec, settings.texts), head)
    return found


def _fitting_demo_texts(head: FoldedHead) -> list[Text]:
    texts = demo_texts()
    return [text for text, fits in zip(texts, fit(head, are_pairs(texts)), strict=True) if fits]


def _test_texts(data: Path) -> Callable[[FoldedHead], list[Text]]:
    def texts_of(head: FoldedHead) -> list[Text]:
        # A head of the user's own has no test file among these.
        folder = TASKS.get(head.task)
        return [] if folder is None else read_labelled(file_of(data / folder, "test")).texts

    return texts_of
