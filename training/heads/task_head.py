"""The paper's task head in torch: pooling over positions, then a two-layer tanh MLP."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from bitheads.engine.features.spec import PositionPooling
from bitheads.export.fold import TrainedHead
from bitheads.training.heads.pooling import pool_positions


class TaskHead(nn.Module):
    """Features of a text's tokens to logits (Section 4 and Figure 3 of the paper).

    `attention` pooling is `nn.MultiheadAttention` with one learned query, the features as keys
    and values. It is evaluated in the order of the folded head: as the query does not depend on
    the text, projecting it by the keys' weights once replaces projecting every token, which
    gives the same function and gradients at a thirtieth of the multiplications.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        attention_heads: int,
        position_pooling: PositionPooling = PositionPooling.ATTENTION,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.position_pooling = position_pooling
        self.attention_heads = attention_heads
        if position_pooling is PositionPooling.ATTENTION:
            self.attention = nn.MultiheadAttention(dim, attention_heads, batch_first=True)
            self.query = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, classes)

    @classmethod
    def of(cls, trained: TrainedHead) -> TaskHead:
        """The head with these parameters, as many inner units as they have."""
        outputs, inner = trained.output_weight.shape
        dim = trained.dense_weight.shape[1]
        head = cls(dim, outputs, trained.attention_heads, trained.position_pooling)
        head.dense, head.output = nn.Linear(dim, inner), nn.Linear(inner, outputs)
        given: dict[str, Any] = {
            "dense.weight": trained.dense_weight,
            "dense.bias": trained.dense_bias,
            "output.weight": trained.output_weight,
            "output.bias": trained.output_bias,
        }
        if trained.query is not None:
            parts = ("query", "key", "value")
            weights = [getattr(trained, f"{part}_weight") for part in parts]
            biases: list[Any] = [trained.query_bias, np.zeros(dim), trained.value_bias]
            given |= {
                "query": trained.query,
                "attention.in_proj_weight": np.concatenate(weights),
                "attention.in_proj_bias": np.concatenate(biases),
                "attention.out_proj.weight": trained.out_weight,
                "attention.out_proj.bias": trained.out_bias,
            }
        head.load_state_dict(
            {name: torch.from_numpy(np.asarray(a, np.float32)) for name, a in given.items()}
        )
        return head.eval()

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits [texts, classes] from features [texts, tokens, dim].

        Args:
            mask: bool [texts, tokens], true for real tokens, which come first.
        """
        if self.position_pooling is PositionPooling.ATTENTION:
            pooled = self._attend(features, mask)
        else:
            pooled = pool_positions(features, mask, self.position_pooling)
        hidden = torch.tanh(self.dense(self.dropout(pooled)))
        logits: torch.Tensor = self.output(self.dropout(hidden))
        return logits

    def _attend(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        heads, dim = self.attention_heads, features.shape[-1]
        query_weight, key_weight, value_weight = self.attention.in_proj_weight.chunk(3)
        query_bias, _, value_bias = self.attention.in_proj_bias.chunk(3)
        query = (query_weight @ self.query + query_bias).view(heads, dim // heads)
        keyed = torch.einsum("hd,hdk->hk", query, key_weight.view(heads, dim // heads, dim))
        scores = features @ keyed.T / math.sqrt(dim // heads)
        scores = scores.masked_fill(~mask[:, :, None], -torch.inf)
        pooled = torch.einsum("nth,ntk->nhk", torch.softmax(scores, dim=1), features)
        values = torch.einsum("nhk,hdk->nhd", pooled, value_weight.view(heads, dim // heads, dim))
        attended: torch.Tensor = self.attention.out_proj(values.flatten(1) + value_bias)
        return attended

    def trained(self) -> TrainedHead:
        """The parameters as arrays, for export.fold."""
        arrays = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        mlp = {
            "dense_weight": arrays["dense.weight"],
            "dense_bias": arrays["dense.bias"],
            "output_weight": arrays["output.weight"],
            "output_bias": arrays["output.bias"],
        }
        if self.position_pooling is not PositionPooling.ATTENTION:
            return TrainedHead(self.position_pooling, self.attention_heads, **mlp)
        dim = arrays["query"].size
        weights, biases = arrays["attention.in_proj_weight"], arrays["attention.in_proj_bias"]
        return TrainedHead(
            self.position_pooling,
            self.attention_heads,
            **mlp,
            query=arrays["query"],
            query_weight=weights[:dim],
            query_bias=biases[:dim],
            key_weight=weights[dim : 2 * dim],
            value_weight=weights[2 * dim :],
            value_bias=biases[2 * dim :],
            out_weight=arrays["attention.out_proj.weight"],
            out_bias=arrays["attention.out_proj.bias"],
        )
