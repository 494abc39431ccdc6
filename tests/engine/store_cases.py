"""Stores of seeded codes, and what is in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitheads import FeatureSpec, LayerPooling, Order, PackedFeatures, Quantization, Words
from bitheads.engine.store import FeatureStore, StoreWriter


def make_spec(dim: int = 64, quantization: str = "sign", encoder: str = "seeded") -> FeatureSpec:
    return FeatureSpec(
        encoder=encoder,
        weights_sha256="0" * 64,
        layers=(1, 2),
        layer_pooling=LayerPooling.MEAN,
        quantization=Quantization(quantization),
        order=Order.POOL_THEN_SIGN,
        dim=dim,
    )


def make_features(
    spec: FeatureSpec, texts: int, seed: int = 0, most_tokens: int = 12
) -> PackedFeatures:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most_tokens + 1, texts)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    codes = rng.integers(0, 256, (int(offsets[-1]), spec.code_bytes), np.uint8)
    return PackedFeatures(codes, offsets, spec)


def make_features_of_words(spec: FeatureSpec, texts: int, seed: int = 0) -> PackedFeatures:
    """Each token is a word of one character, with a blank before the next."""
    features = make_features(spec, texts, seed)
    first = np.arange(len(features.codes)) - np.repeat(features.offsets[:-1], features.num_tokens)
    table = np.column_stack([first, np.ones_like(first), 2 * first, 2 * first + 1])
    of_whole, single = np.full(texts, -1, np.int64), np.ones(texts, np.bool_)
    words = Words(table.astype(np.int32), features.offsets, of_whole, single)
    return replace(features, words=words)


def make_ids(texts: int, first: int = 0) -> list[str]:
    return [f"text-{i}" for i in range(first, first + texts)]


def fill(
    path: Path, parts: int = 3, texts: int = 20, dim: int = 64, **options: Any
) -> FeatureStore:
    """A store of so many parts, so many texts each."""
    store = FeatureStore(path, make_spec(dim))
    with StoreWriter(store, **options) as writer:
        for part in range(parts):
            features = make_features(store.spec, texts, seed=part)
            writer.append(make_ids(texts, part * texts), features)
            writer.flush()
    return store


def contents(store: FeatureStore) -> dict[str, bytes]:
    """Id -> its codes; fails if an id is there twice."""
    found: dict[str, bytes] = {}
    for rows in store.scan():
        for name, features in zip(rows.ids.to_pylist(), rows.features, strict=True):
            assert name not in found
            found[name] = features.codes.tobytes()
    return found


def expected(parts: int = 3, texts: int = 20, dim: int = 64) -> dict[str, bytes]:
    """What `fill` stores."""
    spec, found = make_spec(dim), {}
    for part in range(parts):
        features = make_features(spec, texts, seed=part)
        for name, one in zip(make_ids(texts, part * texts), features, strict=True):
            found[name] = one.codes.tobytes()
    return found
