"""Multiply-adds by hand."""

from __future__ import annotations

from benchmarks.figures import flops
from benchmarks.inputs.shapes import Shape


def test_multiply_adds_of_an_encoder_by_hand() -> None:
    """2 layers, dim 3, inner size 5, 7 tokens: 4 * 9 + 2 * 15 a token, 2 * 7 * 3 for attention."""
    assert flops.encoder(Shape(2, 3, 5, 1, pooled_layers=1), 7) == 2 * 7 * (36 + 30 + 42)
    assert flops.usual_head(3, 7, 4) == 7 * (18 + 6) + 9 + 9 + 12
    assert flops.first_token_head(3, 4) == 9 + 12


def test_a_folded_head_by_hand() -> None:
    """2 tokens, 3 attention heads, dim 6, 5 inner features, 4 classes."""
    assert flops.folded_head(2, 3, 6, classes=4, inner=5) == 2 * 3 * 6 * 2 + 6 * 6 + 5 * 6 + 4 * 5
    assert flops.folded_head(50, 16, 1024, classes=3) == 1_638_400 + 2 * 1_048_576 + 3_072
