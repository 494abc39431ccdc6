"""sentence-transformers with its three backends.

Nothing of the project is imported, so that it may have a Python of its own: the ONNX and OpenVINO
backends want a version of transformers that the project does not take.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer


class SentenceTransformers:
    """`encode` to sentence embeddings, its usual product; its token embeddings give the signs."""

    gives = "last"

    def __init__(self, request: dict[str, Any]) -> None:
        backend, threads = request["backend"], request["threads"]
        options: dict[str, Any] = {}
        if backend == "onnx":
            import onnxruntime

            options["session_options"] = onnxruntime.SessionOptions()
            options["session_options"].intra_op_num_threads = threads
            options["provider"] = "CPUExecutionProvider"
        elif backend == "openvino":
            options["ov_config"] = {"INFERENCE_NUM_THREADS": str(threads)}
        self._model = SentenceTransformer(
            request["source"], device="cpu", backend=backend, model_kwargs=options
        )
        self._model.max_seq_length = request["max_length"]
        texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))
        self._texts = [request["prefix"] + text for text in texts]

    def encode(self) -> None:
        self._model.encode(self._texts, batch_size=32, show_progress_bar=False)

    def padding_share(self) -> float | None:
        return None

    def signs(self, what: str) -> NDArray[np.uint8]:
        found = self._model.encode(
            self._texts, output_value="token_embeddings", show_progress_bar=False
        )
        return np.concatenate([np.packbits(text.numpy() > 0, axis=1) for text in found])


def make(request: dict[str, Any]) -> SentenceTransformers:
    torch.set_num_threads(request["threads"])
    return SentenceTransformers(request)
