"""Multiply-adds of encoders and heads, counted from their shapes (Section 6.5 of the paper).

Embeddings, normalizations and activations are no products and are left out, as is usual.
"""

from __future__ import annotations


def encoder(layers: int, dim: int, ffn_dim: int, tokens: int) -> int:
    """An encoder's, for one text: four projections, two dense stages and attention per layer."""
    per_token = 4 * dim**2 + 2 * dim * ffn_dim
    attention = 2 * tokens * dim  # scores, and the sum they weigh
    return layers * tokens * (per_token + attention)


def usual_head(dim: int, tokens: int, classes: int) -> int:
    """The paper's head (Section 4, Figure 3): keys and values projected at every position."""
    attention = tokens * (2 * dim**2 + 2 * dim) + dim**2
    return attention + dim**2 + classes * dim


def first_token_head(dim: int, classes: int) -> int:
    """Dense, tanh and dense over one vector per text."""
    return dim**2 + classes * dim
