"""Heads with random weights, large enough that their answers differ from text to text."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitheads import FeatureSpec, PositionPooling
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.kinds import KINDS, SINGLE_LABEL, Decision

ATTENTION_HEADS = 4


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
