"""Multiply-adds of encoders and heads, counted from their shapes."""

from __future__ import annotations

from benchmarks.shapes import Shape
from bitheads.training.table3.report import flops
from bitheads.training.table3.report.flops import first_token_head, usual_head

__all__ = ["encoder", "first_token_head", "usual_head"]


def encoder(shape: Shape, tokens: int) -> int:
    """Of one text; see `training.table3.report.flops`."""
    return flops.encoder(shape.layers, shape.dim, shape.ffn_dim, tokens)
