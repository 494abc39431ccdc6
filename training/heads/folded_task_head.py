"""The task head as it is trained on frozen features: in the shape that it is folded to."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bitheads.engine.features.spec import PositionPooling
from bitheads.export.fold import TrainedHead
from bitheads.training.heads.pooling import pool_positions

STRAIGHT = 0.2
"""Up to which tanh is straight, to 1.3%: the largest logit of a linear model is that in it. The
kernels have 1,600 steps up to there."""


class TanhMlp(nn.Module):
    """Two layers, of which the second begins at 0."""

    def __init__(self, depth: int, inner: int, outputs: int, dropout: float) -> None:
        """inner: at least; there is a unit per output."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(depth, max(inner, outputs))
        self.output = nn.Linear(max(inner, outputs), outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, outputs] of [rows, depth]."""
        hidden = torch.tanh(self.dense(self.dropout(x)))
        outputs: torch.Tensor = self.output(self.dropout(hidden))
        return outputs

    @torch.no_grad()
    def set_linear(self, weight: torch.Tensor, bias: torch.Tensor, largest: float) -> None:
        """Makes outputs that are nearly weight x + bias, of one unit each, in place.

        Args:
            weight: float32 [outputs, depth]. bias: float32 [outputs].
            largest: magnitude of weight x that there is.
        """
        outputs, scale = len(weight), STRAIGHT / max(largest, 1e-6)
        for parameter in self.parameters():
            parameter.zero_()
        self.dense.weight[:outputs] = scale * weight
        self.output.weight[:, :outputs] = torch.eye(outputs) / scale
        self.output.bias.copy_(bias)

    @torch.no_grad()
    def scale_outputs(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        """Makes scale z + shift of the outputs z, in place; both float32 [outputs]."""
        self.output.weight.mul_(scale[:, None])
        self.output.bias.mul_(scale).add_(shift)


class FoldedTaskHead(nn.Module):
    """Features of a text's tokens to outputs: attention, values, and a tanh MLP with linear units.

    The same functions as of TaskHead, with one vector per attention head in place of query and
    keys, and no projection behind the values. It begins as the mean of the features, of which all
    outputs are 0: queries are 0, values the features themselves.
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
        self.position_pooling = position_pooling
        self.attention_heads = attention_heads
        if position_pooling is PositionPooling.ATTENTION:
            self.queries = nn.Parameter(torch.zeros(attention_heads, dim))
            self.values = nn.Parameter(torch.eye(dim))
        self.mlp = TanhMlp(dim, dim, outputs, dropout)

    def set_linear(self, weight: torch.Tensor, bias: torch.Tensor, largest: float) -> None:
        """Makes a linear model of the pooled features of the head, in place.

        Args:
            weight: float32 [outputs, dim]. bias: float32 [outputs].
            largest: magnitude of what it gives before the bias.
        """
        self.mlp.set_linear(weight, bias, largest)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Outputs [texts, outputs] from features [texts, tokens, dim].

        Args:
            mask: bool [texts, tokens], true for real tokens, which come first.
        """
        outputs: torch.Tensor = self.mlp(self._pool(features, mask))
        return outputs

    def _pool(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.position_pooling is not PositionPooling.ATTENTION:
            return pool_positions(features, mask, self.position_pooling)
        heads, dim = self.queries.shape
        scores = (features @ self.queries.T).masked_fill(~mask[:, :, None], -torch.inf)
        pooled = torch.bmm(torch.softmax(scores, dim=1).transpose(1, 2), features)
        values = self.values.view(heads, dim // heads, dim)
        return torch.einsum("nhk,hdk->nhd", pooled, values).flatten(1)

    def trained(self) -> TrainedHead:
        """The parameters as arrays, for export.fold: those of a head as in the paper.

        Its queries have a 1 for each attention head, its keys the vectors that scores are made
        with in the rows of those.
        """
        arrays = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        mlp = {
            "dense_weight": arrays["mlp.dense.weight"],
            "dense_bias": arrays["mlp.dense.bias"],
            "output_weight": arrays["mlp.output.weight"],
            "output_bias": arrays["mlp.output.bias"],
        }
        if self.position_pooling is not PositionPooling.ATTENTION:
            return TrainedHead(self.position_pooling, self.attention_heads, **mlp)
        heads, dim = arrays["queries"].shape
        size = dim // heads
        query, keys = np.zeros(dim), np.zeros((dim, dim))
        query[::size] = 1
        keys[::size] = arrays["queries"] * np.sqrt(size)
        return TrainedHead(
            self.position_pooling,
            heads,
            **mlp,
            query=query,
            query_weight=np.eye(dim),
            query_bias=np.zeros(dim),
            key_weight=keys,
            value_weight=arrays["values"],
            value_bias=np.zeros(dim),
            out_weight=np.eye(dim),
            out_bias=np.zeros(dim),
        )
