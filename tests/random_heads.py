"""Heads with random weights, large enough that their answers differ from text to text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bitheads import FeatureSpec, PositionPooling
from bitheads.engine.heads.head_file import FoldedHead, PairHalf
from bitheads.engine.kinds import KINDS, SINGLE_LABEL, Decision

ATTENTION_HEADS = 4
SPAN_LABELS = ("PERSON", "PLACE")


def random_head(
    spec: FeatureSpec,
    task: str = "task",
    pooling: PositionPooling = PositionPooling.ATTENTION,
    classes: int = 3,
    seed: int = 0,
    **options: Any,
) -> FoldedHead:
    """A head for the codes of `spec`; the same seed gives the same weights.

    classes: as many labels, unless `labels` are among the options, which are a FoldedHead's.
    """
    rng = np.random.default_rng(seed)
    labels = options.pop("labels", tuple(f"label-{i}" for i in range(classes)))
    kind, decision = options.pop("kind", SINGLE_LABEL), options.pop("decision", Decision())
    outputs = KINDS[kind].num_logits(labels) + (decision.reject_above is not None)
    dim = spec.dim
    # Codes go to 255 where a feature takes a byte: keep scores and tanh in the same range.
    code_size = 128 if spec.quantization.value == "uint8" else 1

    def draw(*shape: int, scale: float) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    attends = pooling is PositionPooling.ATTENTION
    return FoldedHead(
        task=task,
        labels=labels,
        form=options.pop("form", "single"),
        position_pooling=pooling,
        spec=spec,
        query=draw(ATTENTION_HEADS, dim, scale=3 * dim**-0.5 / code_size) if attends else None,
        value=draw(dim, dim, scale=2 * dim**-0.5 / code_size) if attends else None,
        dense=draw(dim, dim, scale=2 * dim**-0.5 / (1 if attends else code_size)),
        dense_bias=draw(dim, scale=0.3),
        output=draw(outputs, dim, scale=2 * dim**-0.5),
        output_bias=draw(outputs, scale=0.3),
        kind=kind,
        decision=decision,
        **options,
    )


def random_two_texts_head(
    spec: FeatureSpec,
    task: str = "task",
    pooling: PositionPooling = PositionPooling.ATTENTION,
    classes: int = 3,
    seed: int = 0,
    *,
    vector_size: int | None = None,
    inner: int = 40,
    **options: Any,
) -> FoldedHead:
    """One of the form two_texts, whose answers differ from pair to pair.

    vector_size: None: the dim of the codes. inner: of the half that reads pairs.
    """
    head = random_head(spec, task, pooling, classes, seed, **options)
    rng = np.random.default_rng([seed, 1])
    size = spec.dim if vector_size is None else vector_size
    outputs, text_inner = head.output.shape
    dim = 4 * size + 2

    def draw(*shape: int, scale: float) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    # Codes of a pair are about 128, differences 36: the bias keeps tanh in its range.
    dense = draw(inner, dim, scale=3 * dim**-0.5 / 32)
    dense[:, -1] = dense[:, -2] / 256  # of the cosine, the lower byte
    usual = np.full(dim, 128, np.float32)
    usual[2 * size : 3 * size] = 36
    return replace(
        head,
        form="two_texts",
        output=draw(size, text_inner, scale=2 * text_inner**-0.5),
        output_bias=draw(size, scale=0.3),
        pair=PairHalf(
            dense=dense,
            dense_bias=draw(inner, scale=0.3) - dense @ usual,
            output=draw(outputs, inner, scale=2 * inner**-0.5),
            output_bias=draw(outputs, scale=0.3),
        ),
    )


def three_two_texts_heads(spec: FeatureSpec, decision: Decision) -> list[FoldedHead]:
    """Of labels; of vectors of another size, with a decision; and of scores."""
    scores = {"labels": (), "kind": "regression", "decision": Decision(value_range=(-1e3, 1e3))}
    return [
        random_two_texts_head(spec, "apart", seed=2),
        random_two_texts_head(
            spec, "near", PositionPooling.MEAN, seed=3, vector_size=9, decision=decision
        ),
        random_two_texts_head(spec, "size", seed=4, **scores),
    ]


def random_span_head(spec: FeatureSpec, task: str = "names", **options: Any) -> FoldedHead:
    """One of the kind `token_label`, by which the words of a text have different tags."""
    pooling = options.pop("pooling", PositionPooling.MEAN)
    labels = options.pop("labels", SPAN_LABELS)
    head = random_head(spec, task, pooling, labels=labels, kind="token_label", **options)
    return replace(head, output=6 * head.output, output_bias=0 * head.output_bias)
