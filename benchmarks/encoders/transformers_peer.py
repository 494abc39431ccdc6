"""transformers in torch, which is also what signs are compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.encoders.batches import Batch, Batches, in_order, of_texts
from benchmarks.shapes import Shape, random_model
from engine import bundle


class Transformers:
    """In fp32, with the hidden states of all layers, over batches sorted by length."""

    gives = "pooled"

    def __init__(self, request: dict[str, Any]) -> None:
        if request["shape"] is None:
            from transformers import AutoModel

            self._model = AutoModel.from_pretrained(request["source"], dtype=torch.float32).eval()
        else:
            self._model = random_model(Shape(**request["shape"]))
        self._names = ["input_ids", "attention_mask"]
        if self._model.config.model_type == "bert":
            self._names.append("token_type_ids")
        self._layers = bundle.read_manifest(Path(request["bundle"])).spec.layers
        self._texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))
        self._batches = Batches(request)
        self._padding = self._computed = 0

    def encode(self) -> None:
        self._padding = self._computed = 0
        for batch in self._batches(self._texts):
            self._hidden_states(batch)
            self._padding += batch.padding()
            self._computed += batch.ids.size

    def padding_share(self) -> float | None:
        return self._padding / self._computed if self._computed else None

    def signs(self, what: str) -> NDArray[np.uint8]:
        found: dict[int, NDArray[Any]] = {}
        for batch in self._batches(self._texts):
            hidden = self._hidden_states(batch)
            chosen = [hidden[-1]] if what == "last" else [hidden[i] for i in self._layers]
            found |= of_texts(batch, np.mean([layer.numpy() for layer in chosen], axis=0))
        return in_order(found)

    @torch.inference_mode()
    def _hidden_states(self, batch: Batch) -> Any:
        inputs = {name: torch.from_numpy(batch.inputs[name]) for name in self._names}
        return self._model(**inputs, output_hidden_states=True).hidden_states


def make(request: dict[str, Any]) -> Transformers:
    torch.set_num_threads(request["threads"])
    return Transformers(request)
