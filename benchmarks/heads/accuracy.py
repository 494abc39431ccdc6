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
from bitheads.engine.heads.cpu import lay_out
from bitheads.engine.heads.head import predictions_of
from bitheads.engine.heads.head_file import SUFFIX, FoldedHead, read_head
from bitheads.engine.types import Text
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.data.tasks import file_of

Say = Callable[[str], None]
Float64 = NDArray[np.float64]


def evaluate(features: PackedFeatures, head: FoldedHead) -> Float64:
    """The head's outputs in float64, [texts, outputs], as engine/heads/head_file.py says."""
    spec = features.spec
    ones, zeros = np.ones(spec.dim, np.float32), np.zeros(spec.dim, np.float32)
    wide = {name: array.astype(np.float64) for name, array in head.tensors.items()}
    outputs = np.empty((len(features), head.num_outputs))
    for text, (start, stop) in enumerate(pairwise(features.offsets.tolist())):
        packed = features.codes[start:stop]
        codes = unpack(packed, spec.dim, spec.quantization.value, ones, zeros)
        inner = _pool(codes.astype(np.float64), head.position_pooling, wide)
        hidden = np.tanh(wide["dense"] @ inner + wide["dense_bias"])
        outputs[text] = wide["output"] @ hidden + wide["output_bias"]
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
    """Native probabilities against those in float64."""
    call = NativeCall(features, [lay_out(head)], fastest_level())
    call()
    got = predictions_of([head], call.logits)[head.task].probabilities
    expected = softmax(evaluate(features, head)[:, : len(head.labels)])
    return {
        "texts": len(features),
        "tokens": int(features.offsets[-1]),
        "max_probability_difference": rounded(float(np.abs(got - expected).max()), 3),
        "same_top_label": float(np.mean(got.argmax(axis=1) == expected.argmax(axis=1))),
    }


def shipped(bundle_folder: Path, data: Path | None, say: Say) -> dict[str, Any]:
    """Every head of a bundle on its test file, or without `data` on the demo's texts."""
    texts_of = _test_texts(data) if data is not None else lambda head: demo_texts()
    found = {}
    with Engine.load(bundle_folder) as engine:
        for path in sorted((bundle_folder / bundle.HEADS).glob(f"*{SUFFIX}")):
            head = read_head(path)
            if texts := texts_of(head):
                found[head.task] = compare(engine.encode(texts), head)
                say(f"  {head.task}: {found[head.task]}")
    if not found:
        raise InputError(
            f"--bundle {bundle_folder}: has no shipped heads to compare. Build it with "
            "`bitheads build --precision fp16`."
        )
    return found


def random(settings: Settings) -> dict[str, Any]:
    """The same for random heads on random codes, which need no encoder."""
    found = {}
    for name, shape in settings.encoders.items():
        for quantization in (Quantization.SIGN, Quantization.UINT8):
            spec = spec_of(shape, quantization)
            (head,) = random_heads(spec, shape.attention_heads, 1)
            found[f"{name}, {quantization}"] = compare(random_codes(spec, settings.texts), head)
    return found


def _test_texts(data: Path) -> Callable[[FoldedHead], list[Text]]:
    def texts_of(head: FoldedHead) -> list[Text]:
        # A head of the user's own has no test file among these.
        folder = TASKS.get(head.task)
        return [] if folder is None else read_labelled(file_of(data / folder, "test")).texts

    return texts_of
