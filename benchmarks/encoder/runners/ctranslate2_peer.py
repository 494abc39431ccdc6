"""CTranslate2's encoder, converted from the source model; it gives the last layer alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from benchmarks.encoder.runners.batches import Batch, Batches, in_order, of_texts


class CTranslate2:
    gives = "last"

    def __init__(self, request: dict[str, Any]) -> None:
        supported = ctranslate2.get_supported_compute_types("cpu")
        if request["type"] not in supported:
            raise ValueError(f"{request['type']} is none of {sorted(supported)}")
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            ctranslate2.converters.TransformersConverter(request["source"]).convert(str(model))
            self._encoder = ctranslate2.Encoder(
                str(model),
                device="cpu",
                compute_type=request["type"],
                inter_threads=1,
                intra_threads=request["threads"],
            )
        self._batches = Batches(request)
        self._texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))

    def encode(self) -> None:
        for batch in self._batches(self._texts):
            self._run(batch)

    def padding_share(self) -> float | None:
        return None

    def signs(self, what: str) -> NDArray[np.uint8]:
        found: dict[int, NDArray[Any]] = {}
        for batch in self._batches(self._texts):
            last = self._run(batch).last_hidden_state.to(ctranslate2.DataType.float32)
            found |= of_texts(batch, np.array(last))
        return in_order(found)

    def _run(self, batch: Batch) -> Any:
        lengths = batch.mask.sum(axis=1)
        rows = zip(batch.ids.tolist(), lengths, strict=True)
        return self._encoder.forward_batch([ids[:length] for ids, length in rows])


def make(request: dict[str, Any]) -> CTranslate2:
    return CTranslate2(request)
