"""Multiply-adds of encoders and heads, counted from their shapes."""

from __future__ import annotations

from benchmarks.inputs.shapes import CLASSES, Shape
from bitheads.training.table3.report import flops
from bitheads.training.table3.report.flops import first_token_head, usual_head

__all__ = ["encoder", "first_token_head", "folded_head", "usual_head"]


def encoder(shape: Shape, tokens: int) -> int:
    """Of one text; see `training.table3.report.flops`."""
    # A gate is half as many multiplications again.
    ffn_dim = shape.ffn_dim * 3 // 2 if shape.gated else shape.ffn_dim
    return flops.encoder(shape.layers, shape.dim, ffn_dim, tokens)


def folded_head(
    tokens: int, attention_heads: int, dim: int, classes: int = CLASSES, inner: int | None = None
) -> int:
    """Of one text and task: scores, pooled codes, values, dense stage, logits.

    Pooled codes count as if they were multiplied, whatever a kernel does instead.
    """
    inner = dim if inner is None else inner
    per_token = attention_heads * dim + attention_heads * dim
    return tokens * per_token + dim * dim + inner * dim + classes * inner
