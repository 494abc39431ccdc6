"""The sentences a build is calibrated on and compared with, and how the engine batches texts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.batching import cut_batches, pad_batch
from bitheads.engine.cpu_encoder import CPU_BATCH_TOKENS, CPU_CALL_TOKENS
from bitheads.engine.texts.text_files import lines_of
from bitheads.engine.texts.tokenize import Tokens
from bitheads.engine.types import PlacedBatch
from bitheads.export.errors import ExportError

MAX_TEXTS = 2000
"""Texts that are read of a file: more say nothing new about a graph, and take minutes in fp32."""


def read_texts(path: Path | None) -> list[str]:
    """Texts of a file, one per line, or the shipped ones; empty lines are left out.

    Raises ExportError if the file cannot be read or holds no text.
    """
    source = files("bitheads.export") / "data" / "sentences.txt" if path is None else path
    try:
        lines = lines_of(source.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"--calibration {path}: cannot be read ({error}). Expected UTF-8 text, one per line."
        ) from error
    texts = [line for line in lines if line.strip()][:MAX_TEXTS]
    if not texts:
        raise ExportError(f"--calibration {path}: no text in it. Expected one per line.")
    return texts


def token_batches(tokens: Sequence[Tokens], pad_id: int) -> list[PlacedBatch]:
    """The texts as the engine would batch them; their rows belong one text after the other."""
    lengths = np.array([text.ids.size for text in tokens], np.int64)
    starts = np.cumsum(lengths) - lengths
    return [
        PlacedBatch(pad_batch([tokens[i] for i in rows], pad_id), rows, starts[rows])
        for rows in cut_batches(lengths, CPU_BATCH_TOKENS, CPU_CALL_TOKENS)
    ]


def real_tokens(hidden: NDArray[np.generic], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Hidden states [rows, seq, dim] without their padding: float32 [tokens, dim]."""
    is_real = np.arange(hidden.shape[1]) < lengths[:, None]
    tokens: NDArray[np.float32] = hidden[is_real].astype(np.float32)
    return tokens
