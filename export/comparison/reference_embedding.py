"""A text's embedding as torch computes it, without padding: what the runtime's is compared with."""

from __future__ import annotations

import torch

from bitheads.export.source.sentence_modules import SentenceModules

ACTIVATIONS = {
    "identity": torch.nn.Identity(),
    "tanh": torch.nn.Tanh(),
    "relu": torch.nn.ReLU(),
    "sigmoid": torch.nn.Sigmoid(),
    "gelu": torch.nn.GELU(),
    "silu": torch.nn.SiLU(),
}


def reference_embedding(modules: SentenceModules, states: torch.Tensor) -> torch.Tensor:
    """Of a text's last hidden states, float32 [tokens, hidden dim]; float32 [dim]."""
    count = len(states)
    places = torch.arange(1, count + 1, dtype=states.dtype)
    pooled = {
        "cls": states[0],
        "lasttoken": states[-1],
        "max": states.amax(dim=0),
        "mean": states.mean(dim=0),
        "mean_sqrt_len_tokens": states.sum(dim=0) / count**0.5,
        "weightedmean": places @ states / places.sum(),
    }
    vector = torch.cat([pooled[pooling] for pooling in modules.spec.pooling])
    weights = {name: torch.from_numpy(array) for name, array in modules.weights.items()}
    for i, step in enumerate(modules.spec.steps):
        weight, bias = weights.get(f"{i}.weight"), weights.get(f"{i}.bias")
        if step.kind == "normalize":
            vector = torch.nn.functional.normalize(vector, dim=0)
        elif step.kind == "layer_norm":
            vector = torch.nn.functional.layer_norm(vector, vector.shape, weight, bias)
        else:
            assert weight is not None, "a dense step has weights"
            found = ACTIVATIONS[step.activation](torch.nn.functional.linear(vector, weight, bias))
            if step.residual:
                projection = weights.get(f"{i}.residual")
                found = found + (vector if projection is None else projection @ vector)
            vector = found
    return vector
