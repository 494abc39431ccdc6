"""Multiply-adds of encoders and heads, counted from their shapes."""

from __future__ import annotations

from benchmarks.shapes import Shape


def encoder(shape: Shape, tokens: int) -> int:
    """Of one text: the four projections and two dense stages of each layer, and attention.

    Embeddings, normalizations and activations are no products and are left out, as is usual.
    """
    per_token = 4 * shape.dim**2 + 2 * shape.dim * shape.ffn_dim
    attention = 2 * tokens * shape.dim  # scores, and the sum they weigh
    return shape.layers * tokens * (per_token + attention)


def usual_head(dim: int, tokens: int, classes: int) -> int:
    """The paper's head (Section 4, Figure 3): keys and values projected at every position."""
    attention = tokens * (2 * dim**2 + 2 * dim) + dim**2
    return attention + dim**2 + classes * dim


def first_token_head(dim: int, classes: int) -> int:
    """Of a fine-tuned encoder: dense, tanh and dense over the first token."""
    return dim**2 + classes * dim
