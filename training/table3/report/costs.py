"""What inference costs for all tasks together, in multiply-adds (Section 6.5 of the paper)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoConfig

from bitheads.engine.features.spec import LayerPooling, PositionPooling
from bitheads.export.source.architecture import inner_size, layer_stack, model_class
from bitheads.export.source.checkpoint import find_checkpoint
from bitheads.training.table3.features.recipe import Recipe
from bitheads.training.table3.report import flops
from bitheads.training.table3.work import Work


class Costs:
    """Costs of a text of `flops_tokens` tokens, as the paper counts: heads are not folded."""

    def __init__(self, work: Work) -> None:
        self._config = work.config
        self._layers, self._dim = work.loaded.num_layers, work.loaded.dim
        self._ffn_dim = ffn_dim(work.loaded.model, self._layers)
        self._classes = [len(task.task.classes) for task in work.tasks.values()]

    def shared(self, recipe: Recipe) -> int:
        """One encoder, and a head per task on features of a recipe."""
        dim, tokens = self._dim * recipe.codes.width, self._config.flops_tokens
        total = self._encoder(self._layers) + self._heads(dim, recipe.position_pooling)
        if recipe.codes.is_rotated:
            total += tokens * self._dim * dim
        if recipe.layer_pooling is LayerPooling.LEARNED:  # the sum is each task's own
            total += len(self._classes) * tokens * (self._layers + 1) * self._dim
        return total

    def shared_as_is(self, pooling: PositionPooling) -> int:
        """One encoder, and the heads it was trained with."""
        return self._encoder(self._layers) + self._heads(self._dim, pooling)

    def own(self, pooling: PositionPooling) -> int:
        """An encoder per task."""
        return len(self._classes) * self._encoder(self._layers) + self._heads(self._dim, pooling)

    def student(self) -> int:
        """A student per task, of the shape of the encoder it starts from, but for its layers."""
        distil, tokens = self._config.distil, self._config.flops_tokens
        all_layers, dim, inner = self._layers, self._dim, self._ffn_dim
        if distil.encoder is not None:
            config = AutoConfig.from_pretrained(find_checkpoint(distil.encoder).folder)
            with torch.device("meta"):  # its shape alone
                model = model_class(config)(config)
            all_layers, dim = config.num_hidden_layers, config.hidden_size
            inner = ffn_dim(model, all_layers)
        layers = all_layers if distil.layers is None else distil.layers
        encoders = len(self._classes) * flops.encoder(layers, dim, inner, tokens)
        return encoders + self._heads(dim, distil.position_pooling)

    def _encoder(self, layers: int) -> int:
        return flops.encoder(layers, self._dim, self._ffn_dim, self._config.flops_tokens)

    def _heads(self, dim: int, pooling: PositionPooling) -> int:
        tokens = self._config.flops_tokens
        if pooling is PositionPooling.ATTENTION:
            return sum(flops.usual_head(dim, tokens, classes) for classes in self._classes)
        return sum(flops.first_token_head(dim, classes) for classes in self._classes)


def ffn_dim(model: nn.Module, num_layers: int) -> int:
    """The inner size of a model's dense stages."""
    stack = layer_stack(model, num_layers)
    return inner_size(model if stack is None else stack[0])
