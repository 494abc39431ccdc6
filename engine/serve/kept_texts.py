"""What is kept of a text that was encoded: its codes, and its embedding where there is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitheads.engine.engine import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.ragged import offsets_of

Kept = bytes
"""A text's codes, and the bytes of its embedding behind them."""


def embedding_dim(engine: Engine) -> int | None:
    """Numbers of the embeddings that its encoder makes with each batch; None if it makes none."""
    spec = engine.manifest.embedding
    return None if spec is None else spec.dim


def keep(features: PackedFeatures) -> list[Kept]:
    """Of each text; copies, as a view would keep the whole batch."""
    offsets = features.offsets.tolist()
    codes = [features.codes[offsets[i] : offsets[i + 1]].tobytes() for i in range(len(features))]
    if features.embeddings is None:
        return codes
    return [own + vector.tobytes() for own, vector in zip(codes, features.embeddings, strict=True)]


def restore(kept: Sequence[Kept], lengths: Sequence[int], engine: Engine) -> PackedFeatures:
    """The features of texts, in their order.

    Args:
        lengths: tokens of each.
    """
    spec, dim = engine.spec, embedding_dim(engine)
    sizes = [length * spec.code_bytes for length in lengths]
    codes = b"".join([own[:size] for own, size in zip(kept, sizes, strict=True)])
    vectors = None
    if dim is not None:
        behind = b"".join([own[size:] for own, size in zip(kept, sizes, strict=True)])
        vectors = np.frombuffer(behind, np.float32).reshape(-1, dim)
    return PackedFeatures(
        np.frombuffer(codes, np.uint8).reshape(-1, spec.code_bytes),
        offsets_of(lengths),
        spec,
        engine.calibration,
        embeddings=vectors,
    )
