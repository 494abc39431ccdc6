"""A trained head's algebra done once, so that it reads codes directly and multiplies little.

The trained head (Section 4 and Figure 3 of the paper) is a multi-head attention with a learned
query over the features x_t of a text's tokens, then a two-layer tanh MLP:

    s_ht = ((W_Q q + b_Q)_h . (W_K x_t + b_K)_h) / sqrt(d),   a_h = softmax over t of s_h
    o = W_O concat_h(sum_t a_ht (W_V x_t + b_V)_h) + b_O
    logits = W_2 tanh(W_1 o + b_1) + b_2

The query is constant, so W_K moves onto it; what is constant over t cancels in the softmax; the
weights sum to one, so x = scale * code + offset and b_V move past the sum; W_1 W_O is one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.spec import FeatureSpec, PositionPooling
from bitheads.engine.heads.head_file import FoldedHead, PairHalf
from bitheads.engine.kinds import NO_DECISION, SINGLE_LABEL, Decision

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head's parameters as trained; weights are [out, in] as in torch.

    Attributes:
        query: [dim]; query_weight, key_weight, value_weight, out_weight: [dim, dim];
            query_bias, value_bias, out_bias: [dim]. None but for `attention` pooling. (A bias of
            the keys would cancel in the softmax.)
        dense_weight: [inner, dim]. dense_bias: [inner].
        output_weight: [outputs, inner]. output_bias: [outputs].
    """

    position_pooling: PositionPooling
    attention_heads: int
    dense_weight: FloatArray
    dense_bias: FloatArray
    output_weight: FloatArray
    output_bias: FloatArray
    query: FloatArray | None = None
    query_weight: FloatArray | None = None
    query_bias: FloatArray | None = None
    key_weight: FloatArray | None = None
    value_weight: FloatArray | None = None
    value_bias: FloatArray | None = None
    out_weight: FloatArray | None = None
    out_bias: FloatArray | None = None


def fold(
    trained: TrainedHead,
    scale: FloatArray,
    offset: FloatArray,
    *,
    task: str,
    labels: tuple[str, ...],
    form: str,
    spec: FeatureSpec,
    metrics: Mapping[str, float],
    training: Mapping[str, Any],
    kind: str = SINGLE_LABEL,
    decision: Decision = NO_DECISION,
    with_pair: PairHalf | None = None,
) -> FoldedHead:
    """The same function of codes as `trained` is of features, in float32.

    Args:
        with_pair: of the form two_texts; `trained` is then the half that reads each text.
        scale, offset: [dim], x = scale * code + offset, see engine.features.codes.code_affine.

    The products are taken in float64, so folding itself costs no accuracy.
    """
    scale64, offset64 = scale.astype(np.float64), offset.astype(np.float64)
    query = value = None
    dense = trained.dense_weight.astype(np.float64)
    bias = trained.dense_bias.astype(np.float64)
    if trained.position_pooling is PositionPooling.ATTENTION:
        query = _fold_query(trained, scale64)
        value_weight = _wide(trained.value_weight)
        out_weight, out_bias = _wide(trained.out_weight), _wide(trained.out_bias)
        value = value_weight * scale64
        value_bias = _wide(trained.value_bias) + value_weight @ offset64
        bias = bias + dense @ (out_weight @ value_bias + out_bias)
        dense = dense @ out_weight
    else:
        bias = bias + dense @ offset64
        dense = dense * scale64
    return FoldedHead(
        task=task,
        labels=labels,
        form=form,
        position_pooling=trained.position_pooling,
        spec=spec,
        query=None if query is None else query.astype(np.float32),
        value=None if value is None else value.astype(np.float32),
        dense=dense.astype(np.float32),
        dense_bias=bias.astype(np.float32),
        output=trained.output_weight.astype(np.float32),
        output_bias=trained.output_bias.astype(np.float32),
        metrics=metrics,
        training=training,
        kind=kind,
        decision=decision,
        pair=with_pair,
    )


def _fold_query(trained: TrainedHead, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """query_h = scale * W_K,h^T (W_Q q + b_Q)_h / sqrt(d): float64 [attention_heads, dim]."""
    dim, heads = scale.size, trained.attention_heads
    query = _wide(trained.query_weight) @ _wide(trained.query) + _wide(trained.query_bias)
    keys = _wide(trained.key_weight).reshape(heads, dim // heads, dim)
    per_head = query.reshape(heads, dim // heads)
    folded: NDArray[np.float64] = np.einsum("hd,hdk->hk", per_head, keys)
    folded *= scale / np.sqrt(dim // heads)
    return folded


def _wide(array: FloatArray | None) -> NDArray[np.float64]:
    assert array is not None, "attention pooling has all of its weights"
    return array.astype(np.float64)
