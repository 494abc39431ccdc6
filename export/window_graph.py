"""Attention within windows as nodes of a graph: blocks of queries, beside the keys they see.

With B queries in a block and windows of `reach` tokens beside the token itself, a block sees
B + reach keys. All blocks of all texts are rows of one batch of attention in its usual form, which
every backend computes in one kernel, and memory grows with a text's length, not with its square.
A text of up to MIN_BLOCK tokens is one block, and costs what it would without windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20

from bitheads.export.source.windows import MASKED_SCORE

op: Any = opset20  # whose types say less than it can do

MIN_BLOCK = 512
"""Queries of a block, if windows reach no further. Fewer would have each key copied into more
blocks; more would compute more scores that are masked."""


def _windowed_attention(
    query: Any, key: Any, value: Any, mask: Any, before: int, after: int, scale: float
) -> Any:
    """Nodes of export.source.windows.windowed_attention."""
    heads, size = query.shape[1], query.shape[3]
    reach = before + after
    most = max(MIN_BLOCK, reach)
    shape = op.Shape(mask)
    rows, seq = op.Gather(shape, _integer(0)), op.Gather(shape, _integer(1))
    one = _integer(1)
    blocks = op.Div(op.Max(seq, one) + _integer(most - 1), _integer(most))
    queries = op.Div(seq + blocks - one, blocks)
    keys = op.Min(seq, queries + _integer(reach))

    # Positions in a text: of the blocks' queries [blocks, queries], those beyond the last token
    # included, and of the keys they see [blocks, keys].
    begin = _range(blocks) * queries
    query_at = _with_axes(begin, 1) + _range(queries)
    first_key = op.Max(op.Min(begin - _integer(before), seq - keys), _integer(0))
    key_at = _with_axes(first_key, 1) + _range(keys)

    # The same as rows of all texts' tokens one after another.
    text = _with_axes(_range(rows) * seq, 1, 2)
    query_rows = _merged(text + op.Min(query_at, seq - one))
    key_rows = text + key_at
    back = _with_axes(_range(rows) * (blocks * queries), 1) + _range(seq)

    away = _with_axes(key_at, 1) - _with_axes(query_at, 2)
    near = op.And(op.GreaterOrEqual(away, _integer(-before)), op.LessOrEqual(away, _integer(after)))
    token = op.Cast(op.Gather(op.Reshape(mask, _integers(-1)), key_rows), to=9)  # bool
    seen = _with_axes(_merged(op.And(_with_axes(token, 2), near)), 1)
    bias = op.Where(seen, op.Constant(value_float=0.0), op.Constant(value_float=MASKED_SCORE))

    def take(states: Any, at: Any) -> Any:
        """[rows of `at`, its columns, heads, size]"""
        flat = op.Reshape(op.Transpose(states, perm=[0, 2, 1, 3]), _integers(-1, heads, size))
        return op.Gather(flat, at)

    key_rows = _merged(key_rows)
    q = op.Transpose(take(query, query_rows), perm=[0, 2, 1, 3])
    k = op.Transpose(take(key, key_rows), perm=[0, 2, 3, 1])
    v = op.Transpose(take(value, key_rows), perm=[0, 2, 1, 3])
    scores = op.MatMul(q, k) * op.CastLike(op.Constant(value_float=scale), query)
    weights = op.Softmax(scores + op.CastLike(bias, query), axis=-1)
    found = op.Transpose(op.MatMul(weights, v), perm=[0, 2, 1, 3])
    return op.Gather(op.Reshape(found, _integers(-1, heads, size)), back)


def _integer(value: int) -> Any:
    return op.Constant(value_int=value)


def _integers(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _range(end: Any) -> Any:
    return op.Range(_integer(0), end, _integer(1))


def _with_axes(tensor: Any, *axes: int) -> Any:
    """With axes of one element put in."""
    return op.Unsqueeze(tensor, _integers(*axes))


def _merged(tensor: Any) -> Any:
    """Its first two axes as one."""
    rest = op.Shape(tensor, start=2)
    return op.Reshape(tensor, op.Concat(_integers(-1), rest, axis=0))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.bitheads.windowed_attention.default: _windowed_attention
}
"""For torch.onnx.export."""
