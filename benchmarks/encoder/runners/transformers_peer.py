"""transformers in torch, which is also what signs are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.encoder.runners.batches import Batch, OverBatches
from benchmarks.inputs.shapes import Shape, random_model
from bitheads.engine import bundle


class Transformers(OverBatches):
    """In fp32, with the hidden states of all layers, over batches sorted by length."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        if request["shape"] is None:
            from transformers import AutoModel

            self._model = AutoModel.from_pretrained(request["source"], dtype=torch.float32).eval()
        else:
            self._model = random_model(Shape(**request["shape"]))
        self._names = ["input_ids", "attention_mask"]
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            self._names.append("token_type_ids")
        self._layers = bundle.read_manifest(Path(request["bundle"])).spec.layers

    @torch.inference_mode()
    def compute(self, batch: Batch) -> Any:
        inputs = {name: torch.from_numpy(batch.inputs[name]) for name in self._names}
        return self._model(**inputs, output_hidden_states=True).hidden_states

    def layers(self, states: Any, what: str) -> list[NDArray[np.float32]]:
        chosen = [states[-1]] if what == "last" else [states[i] for i in self._layers]
        return [layer.numpy() for layer in chosen]


def make(request: dict[str, Any]) -> Transformers:
    torch.set_num_threads(request["threads"])
    return Transformers(request)
