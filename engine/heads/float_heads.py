"""Task heads in NumPy, in float32: for float16 features, whose codes are no integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.features.codes import unpack
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head import empty_outputs
from bitheads.engine.heads.head_file import FoldedHead

FloatArray = NDArray[np.float32]

BLOCK_BYTES = 64 << 20
"""Bound on the largest intermediate, whatever the number of texts (one text aside)."""


def predict_heads(features: PackedFeatures, heads: Sequence[FoldedHead]) -> list[FloatArray]:
    """Each head's outputs, float32 [texts, outputs]; any quantization. Texts have tokens."""
    logits = empty_outputs(heads, len(features))
    attention = [h for h in heads if h.position_pooling is PositionPooling.ATTENTION]
    queries = [head.query for head in attention if head.query is not None]
    stacked = np.concatenate(queries) if queries else np.empty((0, features.spec.dim), np.float32)
    for start, stop in _blocks(features, len(stacked)):
        pooled = _pool_positions(features[start:stop], stacked)
        first_query = 0
        for head, out in zip(heads, logits, strict=True):
            if head.query is not None:
                last_query = first_query + len(head.query)
                inner = _project_values(pooled.attention[:, first_query:last_query], head)
                first_query = last_query
            elif head.position_pooling is PositionPooling.MEAN:
                inner = pooled.mean
            elif head.position_pooling is PositionPooling.CLS:
                inner = pooled.first
            else:
                inner = pooled.last
            hidden = np.tanh(inner @ head.dense.T + head.dense_bias)
            out[start:stop] = hidden @ head.output.T + head.output_bias
    return logits


class _Pooled:
    """A block's codes pooled over positions.

    attention: float32 [texts, queries, dim]. mean, first, last: float32 [texts, dim].
    """

    def __init__(self, texts: int, queries: int, dim: int) -> None:
        self.attention = np.empty((texts, queries, dim), np.float32)
        self.mean = np.empty((texts, dim), np.float32)
        self.first = np.empty((texts, dim), np.float32)
        self.last = np.empty((texts, dim), np.float32)


def _pool_positions(block: PackedFeatures, queries: FloatArray) -> _Pooled:
    spec = block.spec
    one, zero = np.ones(spec.dim, np.float32), np.zeros(spec.dim, np.float32)
    codes = unpack(block.codes, spec.dim, spec.quantization.value, one, zero)
    scores = codes @ queries.T
    pooled = _Pooled(len(block), len(queries), spec.dim)
    bounds = block.offsets.tolist()
    for text, (start, stop) in enumerate(pairwise(bounds)):
        tokens = codes[start:stop]
        weights = np.exp(scores[start:stop] - scores[start:stop].max(axis=0))
        weights /= weights.sum(axis=0)
        np.matmul(weights.T, tokens, out=pooled.attention[text])
        pooled.mean[text] = tokens.mean(axis=0)
        pooled.first[text] = tokens[0]
        pooled.last[text] = tokens[-1]
    return pooled


def _project_values(pooled: FloatArray, head: FoldedHead) -> FloatArray:
    """pooled: float32 [texts, attention_heads, dim] -> float32 [texts, dim]."""
    assert head.value is not None
    texts, heads, dim = pooled.shape
    value = head.value.reshape(heads, dim // heads, dim)
    projected = np.matmul(pooled.transpose(1, 0, 2), value.transpose(0, 2, 1))
    by_text: FloatArray = projected.transpose(1, 0, 2).reshape(texts, dim)
    return by_text


def _blocks(features: PackedFeatures, num_queries: int) -> Iterator[tuple[int, int]]:
    """Runs of texts whose unpacked codes, scores and pooled codes keep to BLOCK_BYTES."""
    dim = features.spec.dim
    token_floats, text_floats = max(dim, num_queries), (num_queries + 3) * dim
    start = 0
    while start < len(features):
        tokens_left = features.offsets[start] + BLOCK_BYTES // (4 * token_floats)
        by_tokens = int(np.searchsorted(features.offsets, tokens_left, side="right")) - 1
        by_texts = start + BLOCK_BYTES // (4 * text_floats)
        stop = min(max(start + 1, min(by_tokens, by_texts)), len(features))
        yield start, stop
        start = stop
