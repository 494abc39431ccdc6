"""A head of the form `two_texts` in torch: each text's vector, and a tanh MLP of two of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import PairHalf
from bitheads.training.heads.folded_task_head import FoldedTaskHead, TanhMlp

LARGEST_FEATURE = 2.0
"""Of a mean feature, about: signs' are 1."""

VECTORS_SHARE = 0.1
"""Length of a text's vector where the cosine is 1. Of few pairs the cosine says most: with 8 to 128
examples per label, linear models with 0.1 had 62.1 to 66.9% right where those with 1 had 53.4 to
62.9 (mean of five tasks)."""

UNIT_STEPS, PRODUCT_STEPS, COSINE_STEPS = 32.0, 8.0, 32767.5
"""Of a code per 1, see `kernels/SPEC.md` (combine_texts)."""


class TwoTextsHead(nn.Module):
    """Features of two texts' tokens, each text encoded by itself, to outputs.

    Both texts go through the same half, which begins as the mean of the features, and are held
    against each other: both vectors at a root mean square of 1, the sizes of their differences,
    their products, their cosine.
    """

    def __init__(
        self,
        dim: int,
        outputs: int,
        attention_heads: int,
        position_pooling: PositionPooling = PositionPooling.ATTENTION,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.text = FoldedTaskHead(dim, dim, attention_heads, position_pooling)
        self.text.set_linear(torch.eye(dim), torch.zeros(dim), LARGEST_FEATURE)
        self.mlp = TanhMlp(4 * dim + 1, dim, outputs, dropout)

    def set_linear(self, weight: torch.Tensor, bias: torch.Tensor, largest: float) -> None:
        """Makes a linear model of `balanced` pairs of the head, in place.

        Args:
            weight: float32 [outputs, 4 dim + 1]. bias: float32 [outputs].
            largest: magnitude of what it gives before the bias.
        """
        balanced = weight * torch.from_numpy(balance(weight.shape[1] // 4))
        self.mlp.set_linear(balanced, bias, largest)

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor, pairs: torch.Tensor
    ) -> torch.Tensor:
        """Outputs [pairs, outputs] from features [texts, tokens, dim].

        Args:
            mask: bool [texts, tokens], true for real tokens, which come first.
            pairs: int64 [pairs, 2], which texts.
        """
        vectors = self.text(features, mask)
        unit = vectors * torch.rsqrt(vectors.square().mean(dim=1, keepdim=True).clamp_min(1e-12))
        combined = combine(unit[pairs[:, 0]], unit[pairs[:, 1]], exact=not self.training)
        outputs: torch.Tensor = self.mlp(combined)
        return outputs

    def pair_half(self) -> PairHalf:
        """The half that reads two texts' vectors, folded: it reads codes."""
        arrays = {
            name: value.detach().cpu().numpy().astype(np.float64)
            for name, value in self.state_dict().items()
        }
        weight, bias = arrays["mlp.dense.weight"], arrays["mlp.dense.bias"]
        dim = weight.shape[1] // 4
        scale = np.repeat(1 / np.array([UNIT_STEPS, UNIT_STEPS, UNIT_STEPS, PRODUCT_STEPS]), dim)
        offset = np.repeat(-128 / np.array([UNIT_STEPS, UNIT_STEPS, np.inf, PRODUCT_STEPS]), dim)
        of_cosine = weight[:, -1:]
        dense = np.concatenate(
            [weight[:, :-1] * scale, of_cosine * 256 / COSINE_STEPS, of_cosine / COSINE_STEPS],
            axis=1,
        )
        bias = bias + weight[:, :-1] @ offset - of_cosine[:, 0]
        output, output_bias = arrays["mlp.output.weight"], arrays["mlp.output.bias"]
        return PairHalf(*map(_narrow, (dense, bias, output, output_bias)))


def combine(u: torch.Tensor, w: torch.Tensor, exact: bool) -> torch.Tensor:
    """What is read of two texts' vectors at root mean square 1: [pairs, 4 dim + 1].

    Args:
        exact: rounded as the codes are that the kernels make of it.
    """
    cosine = (u * w).mean(dim=1, keepdim=True)
    parts = [u, w, (u - w).abs(), u * w]
    if exact:
        steps = (UNIT_STEPS, UNIT_STEPS, UNIT_STEPS, PRODUCT_STEPS)
        bounds = ((-128, 127), (-128, 127), (0, 255), (-128, 127))
        parts = [
            (part * step).round().clamp(*bound) / step
            for part, step, bound in zip(parts, steps, bounds, strict=True)
        ]
    return torch.cat([*parts, cosine], dim=1)


def balance(dim: int) -> NDArray[np.float32]:
    """What each number of `combine` is multiplied by for a linear model, whose penalty holds on to
    what is small the longest: float32 [4 dim + 1]."""
    root = np.float32(1 / np.sqrt(dim))
    share = np.float32(VECTORS_SHARE) * root
    factors = np.array([share, share, share, share * root, 1], np.float32)
    return np.repeat(factors, [dim, dim, dim, dim, 1])


def balanced(means: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """What a linear model reads of pairs: float32 [pairs, 4 dim + 1].

    Args:
        means: float32 [texts, dim]. pairs: int64 [pairs, 2], rows of them.
    """
    rms = np.sqrt(np.square(means).mean(axis=1, keepdims=True))
    unit = torch.from_numpy(means / np.maximum(rms, 1e-6))
    combined = combine(unit[pairs[:, 0]], unit[pairs[:, 1]], exact=False).numpy()
    found: NDArray[np.float32] = combined * balance(means.shape[1])
    return found


def _narrow(array: NDArray[np.float64]) -> NDArray[np.float32]:
    return array.astype(np.float32)
