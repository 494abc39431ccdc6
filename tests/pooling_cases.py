"""Hidden states to be pooled over positions, and bundles of embeddings that are made so."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bitheads.engine.bundle import EMBEDDING, MANIFEST, Artifact, read_embedder, read_manifest
from bitheads.engine.features.embedding import (
    POOLINGS,
    RANGES,
    Embedder,
    EmbeddingSpec,
    Step,
    pool,
)

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def make_states(rng: np.random.Generator, shape: tuple[int, int, int], dtype: str) -> NDArray[Any]:
    """[rows, seq, dim], of magnitudes so different that another order of a sum shows."""
    magnitudes = np.exp2(rng.integers(-9, 9, shape)).astype(np.float32)
    return (rng.standard_normal(shape, np.float32) * magnitudes).astype(DTYPES[dtype])


def expected(states: NDArray[Any], lengths: NDArray[np.int64], pooling: str) -> NDArray[np.float32]:
    """float32 [rows, dim]."""
    rows = [states[row, :length].astype(np.float32) for row, length in enumerate(lengths)]
    return np.stack([pool(row, pooling) for row in rows])


def with_embedding(
    bundle: Path,
    folder: Path,
    poolings: Sequence[str] = POOLINGS,
    steps: Sequence[Step] = (),
    weights: Mapping[str, NDArray[np.float32]] | None = None,
    dim: int | None = None,
    max_length: int | None = None,
) -> Embedder:
    """A copy of a bundle whose embedding is this; what makes it.

    Args:
        weights: of the steps.
        dim: that the steps end with; None: the poolings' own.
        max_length: of a text, for encoders that are no encoders.
    """
    shutil.copytree(bundle, folder)
    manifest = read_manifest(folder)
    spec = EmbeddingSpec(tuple(poolings), tuple(steps), dim or manifest.spec.dim * len(poolings))
    arrays = {**(weights or {}), RANGES: np.zeros((2, spec.dim), np.float32)}
    save_file(arrays, folder / EMBEDDING)
    artifacts = {**manifest.artifacts, EMBEDDING: Artifact.of(folder / EMBEDDING)}
    encoder = manifest.encoder
    encoder = replace(encoder, max_length=max_length or encoder.max_length)
    manifest = replace(manifest, embedding=spec, artifacts=artifacts, encoder=encoder)
    (folder / MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    embedder = read_embedder(folder, read_manifest(folder))
    assert embedder is not None
    return embedder
