"""Tiny models of sentence-transformers, as it writes them: an encoder and modules behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny_encoders import DIM

Modules = list[Any]


def dense(size: int, out: int, activation: torch.nn.Module, **options: Any) -> Any:
    torch.manual_seed(out)
    return st.Dense(size, out, activation_function=activation, **options)


def layer_norm(size: int) -> Any:
    module = st.LayerNorm(size)
    with torch.no_grad():
        module.norm.weight.uniform_(0.5, 2)
        module.norm.bias.uniform_(-1, 1)
    return module


MODULES: dict[str, Callable[[], Modules]] = {
    "mean": lambda: [st.Pooling(DIM, "mean")],
    "cls": lambda: [st.Pooling(DIM, "cls")],
    "max": lambda: [st.Pooling(DIM, "max")],
    "weighted": lambda: [st.Pooling(DIM, "weightedmean"), st.Normalize()],
    "square root": lambda: [st.Pooling(DIM, "mean_sqrt_len_tokens")],
    "last": lambda: [st.Pooling(DIM, "lasttoken"), st.Normalize()],
    "several": lambda: [st.Pooling(DIM, ("cls", "mean", "max")), st.Normalize()],
    "dense": lambda: [
        st.Pooling(DIM, "mean"),
        dense(DIM, 48, torch.nn.Tanh()),
        dense(48, 80, torch.nn.Identity(), bias=False),
        st.Normalize(),
    ],
    "residuals": lambda: [
        st.Pooling(DIM, "cls"),
        dense(DIM, DIM, torch.nn.GELU(), use_residual=True),
        st.Dropout(0.5),
        layer_norm(DIM),
        dense(DIM, 32, torch.nn.SiLU(), use_residual=True),
    ],
}


def save_sentence_model(
    folder: Path, encoder: Path, modules: Sequence[Any], **options: Any
) -> Path:
    """Writes the encoder and the modules where SentenceTransformer finds them."""
    model = SentenceTransformer(
        modules=[st.Transformer(str(encoder)), *modules], device="cpu", **options
    )
    model.save(str(folder), create_model_card=False)
    return folder
