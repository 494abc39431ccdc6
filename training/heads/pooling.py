"""One vector of a text's tokens, where nothing is learned of which of them matter."""

from __future__ import annotations

import torch

from bitheads.engine.features.spec import PositionPooling


def pool_positions(
    features: torch.Tensor, mask: torch.Tensor, pooling: PositionPooling
) -> torch.Tensor:
    """The mean, first or last of each text's tokens: [texts, dim] of [texts, tokens, dim].

    Args:
        mask: bool [texts, tokens], true for real tokens, which come first.
    """
    if pooling is PositionPooling.MEAN:
        weights = mask / mask.sum(dim=1, keepdim=True)
        return torch.bmm(weights[:, None], features)[:, 0]
    if pooling is PositionPooling.CLS:
        return features[:, 0]
    return features[torch.arange(len(features), device=mask.device), mask.sum(dim=1) - 1]
