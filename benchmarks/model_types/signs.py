"""A bundle's signs beside those of transformers, called as anybody calls it: the outside judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from benchmarks.inputs.model_types import auto_class
from bitheads import Engine
from bitheads.engine.types import Text

BACKENDS = ("openvino", "onnxruntime")


def shares_of_signs(source: Path, bundle: Path, texts: Sequence[Text]) -> dict[str, float]:
    """Backend -> the share of all the texts' signs that are as transformers computes them."""
    compared = signs_as_in_transformers(source, bundle, texts)
    return {
        backend: float(np.concatenate([same.ravel() for same in of_texts]).mean())
        for backend, of_texts in compared.items()
    }


def signs_as_in_transformers(
    source: Path, bundle: Path, texts: Sequence[Text]
) -> dict[str, list[NDArray[np.bool_]]]:
    """Backend -> for each text, which signs are transformers' own, bool [tokens, dim].

    Args:
        source: the encoder's folder. bundle: made of its last two layers, run in fp32.
    """
    tokenizer = AutoTokenizer.from_pretrained(source)
    auto = auto_class(type(AutoConfig.from_pretrained(source)))
    model = auto.from_pretrained(source, dtype=torch.float32).eval()
    compared = {}
    for backend in BACKENDS:
        with Engine.load(bundle, backend=backend, precision="fp32") as engine:
            features = engine.encode(list(texts))
            limit = engine.manifest.encoder.max_length
        of_texts = []
        for text, own in zip(texts, features, strict=True):
            parts = (text,) if isinstance(text, str) else text
            inputs = tokenizer(*parts, truncation=True, max_length=limit, return_tensors="pt")
            if inputs["input_ids"].numel() == 0:
                assert own.codes.size == 0
                continue
            with torch.inference_mode():
                found = model(**inputs, output_hidden_states=True, return_dict=True)
            expected = torch.stack(found.hidden_states[-2:]).mean(0)[0].numpy() > 0
            assert own.codes.shape[0] == expected.shape[0]
            bits = np.unpackbits(own.codes, axis=1)[:, : expected.shape[1]]
            of_texts.append(bits == expected)
        compared[backend] = of_texts
    return compared
