"""The sentences a build is calibrated on and compared with, and the source model's own answers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.batching import cut_batches, pad_batch
from engine.encoder import CPU_BATCH_TOKENS, CPU_CALL_TOKENS
from engine.text_files import lines_of
from engine.tokenize import TextTokenizer
from engine.types import TokenBatch
from export.encoder import HiddenStates
from export.errors import ExportError

MAX_TEXTS = 2000
"""More than this says nothing new about a graph, and takes minutes in float32."""


def read_texts(path: Path | None) -> list[str]:
    """Texts of a file, one a line, or the shipped ones; empty lines are left out.

    Raises ExportError if the file cannot be read or holds no text.
    """
    source = files("export") / "data" / "sentences.txt" if path is None else path
    try:
        lines = lines_of(source.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"--calibration {path}: cannot be read ({error}). Expected UTF-8 text, one a line."
        ) from error
    texts = [line for line in lines if line.strip()][:MAX_TEXTS]
    if not texts:
        raise ExportError(f"--calibration {path}: no text in it. Expected one a line.")
    return texts


def token_batches(tokenizer: TextTokenizer, texts: list[str], pad_id: int) -> list[TokenBatch]:
    """The texts as the engine would batch them."""
    tokens = tokenizer(texts)
    lengths = np.array([text.ids.size for text in tokens], np.int64)
    return [
        pad_batch([tokens[i] for i in rows], pad_id)
        for rows in cut_batches(lengths, CPU_BATCH_TOKENS, CPU_CALL_TOKENS)
    ]


def real_tokens(hidden: NDArray[np.generic], batch: TokenBatch) -> NDArray[np.float32]:
    """[rows, seq, dim] -> float32 [tokens, dim] without the padding."""
    tokens: NDArray[np.float32] = hidden[batch.attention_mask.astype(bool)].astype(np.float32)
    return tokens


def torch_hidden_states(
    module: HiddenStates, batches: list[TokenBatch]
) -> Iterator[list[NDArray[np.float32]]]:
    """The source model's hidden states in float32, for each batch: [tokens, dim] a layer."""
    for batch in batches:
        inputs = [torch.from_numpy(getattr(batch, name)) for name in module.input_names]
        with torch.inference_mode():
            yield [real_tokens(hidden.numpy(), batch) for hidden in module(*inputs)]
