"""One encoder with a head per task, as multi-task pre-training has it (Section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from bitheads.engine.types import TokenBatch
from bitheads.export.config import choose_layers
from bitheads.export.source.encoder import Encoder, HiddenStates
from bitheads.training.data.batches import seed_of
from bitheads.training.errors import TrainingError
from bitheads.training.heads.task_head import TaskHead
from bitheads.training.multitask.config import MultitaskConfig


class MultitaskModel:
    """The encoder's weights are shared by all tasks; a head, as in Section 3.4, is its task's own.

    Attributes:
        layers: the hidden states whose mean the heads read; a single one with `last` pooling.
        heads: task -> head. A head starts from weights that depend on the seed and its task's
            name alone, whatever other tasks there are.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: Mapping[str, int],
        config: MultitaskConfig,
        device: torch.device,
    ) -> None:
        """Raises ExportError for layers that the encoder does not have, TrainingError for attention
        heads that do not divide its dim."""
        self.layers = choose_layers(config.layers, encoder.num_layers, config.layer_pooling)
        attention_heads = config.attention_heads or encoder.attention_heads
        if encoder.dim % attention_heads:
            raise TrainingError(
                f"attention_heads: got {attention_heads}, expected a divisor of dim {encoder.dim}."
            )
        # Loaded in its plain form, which is what can be traced. This one is faster.
        encoder.model.set_attn_implementation("sdpa")
        self.encoder = encoder
        self.device = device
        self._signs = config.signs
        self._hidden_states = HiddenStates(encoder, self.layers).to(device)
        self.heads: dict[str, TaskHead] = {}
        for task, count in classes.items():
            torch.manual_seed(seed_of(config.seed, f"{task} head"))
            self.heads[task] = TaskHead(
                encoder.dim, count, attention_heads, config.position_pooling, config.dropout
            ).to(device)

    def logits(self, task: str, batch: TokenBatch) -> torch.Tensor:
        """The logits of one task, [rows, classes]."""
        inputs = [
            torch.from_numpy(getattr(batch, name)).to(self.device)
            for name in self._hidden_states.input_names
        ]
        hidden = self._hidden_states(*inputs)
        features = hidden[0] if len(hidden) == 1 else torch.stack(hidden).mean(dim=0)
        if self._signs:
            features = straight_through_signs(features)
        logits: torch.Tensor = self.heads[task](features, inputs[1].bool())
        return logits

    def train(self, is_training: bool = True) -> None:
        """Turns dropout on or off."""
        for module in (self._hidden_states, *self.heads.values()):
            module.train(is_training)

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        """`encoder/<name>` -> parameter."""
        named = self.encoder.model.named_parameters()
        return {f"encoder/{name}": parameter for name, parameter in named}

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """`head/<task>/<name>` -> parameter."""
        return {
            f"head/{task}/{name}": parameter
            for task, head in self.heads.items()
            for name, parameter in head.named_parameters()
        }

    def parameters(self) -> dict[str, nn.Parameter]:
        """All parameters by name."""
        return {**self.encoder_parameters(), **self.head_parameters()}


def straight_through_signs(features: torch.Tensor) -> torch.Tensor:
    """+1 where a feature is above 0, else -1, with the gradient of the features themselves."""
    signs = torch.where(features > 0, 1.0, -1.0).to(features.dtype)
    return features + (signs - features).detach()
