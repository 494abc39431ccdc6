"""Features of every layer, and the head that weighs the layers itself (`learned` pooling)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitheads.engine.features.spec import PositionPooling
from bitheads.training.heads.folded_task_head import FoldedTaskHead


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """The layers of the real tokens of some texts.

    Attributes:
        values: float16 [tokens, layers, dim].
        offsets: int64 [texts + 1]; text i owns values[offsets[i]:offsets[i + 1]].
    """

    values: NDArray[np.float16]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of texts."""
        return self.offsets.size - 1

    @property
    def dim(self) -> int:
        return int(self.values.shape[2])

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 [texts]."""
        return np.diff(self.offsets)


class WeighingHead(FoldedTaskHead):
    """A task head behind a learned weighted sum of layers (LEARNED-COMB in Section 4).

    The weights are a softmax over layers times a scale, as in Peters et al. (2018).
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        classes: int,
        attention_heads: int,
        position_pooling: PositionPooling,
        dropout: float,
    ) -> None:
        super().__init__(dim, classes, attention_heads, position_pooling, dropout)
        self.layer_scores = nn.Parameter(torch.zeros(layers))
        self.layer_scale = nn.Parameter(torch.ones(()))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits [texts, classes] from features [texts, tokens, layers, dim]."""
        weights = self.layer_scale * torch.softmax(self.layer_scores, dim=0)
        return super().forward(torch.einsum("ntlk,l->ntk", features, weights), mask)
