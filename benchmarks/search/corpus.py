"""Real texts with their embeddings and codes, in a feature store: one run encodes, others read."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs.texts import drawn, mixed
from bitheads.engine import Engine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.jobs.encode import encode_texts
from bitheads.engine.progress import progress_bar
from bitheads.engine.store import EmbeddingColumn, FeatureStore, StoreWriter

MOST_CHARACTERS = 400
"""Characters of a text at most: sentences, questions, headlines and short reviews."""

Signs = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts, in one order.

    Attributes:
        vectors: embeddings of length 1, float32 [texts, dim].
        signs: their signs, eight to a byte, uint8 [texts, dim / 8].
        steps: int8 embeddings, as the bundle makes them, int8 [texts, dim].
        step: what one of these steps is, float32 [dim].
        majority: of the signs of a text's tokens, uint8 [texts, code_bytes].
        tokens: of a text, on average.
    """

    vectors: NDArray[np.float32]
    signs: Signs
    steps: NDArray[np.int8]
    step: NDArray[np.float32]
    majority: Signs
    tokens: float


def texts_of(data: Path | None, count: int) -> list[str]:
    """So many different texts of the training files of a data folder, in random order; fewer, if it
    has no more. Without a folder, of the shipped sentences."""
    if data is None:
        return mixed(None, count)
    short = [text for text in drawn(data, 4 * count, "train") if len(text) <= MOST_CHARACTERS]
    pool = [*dict.fromkeys(short)]
    random.Random(1).shuffle(pool)
    return pool[:count]


def encoded(bundle: Path, store: Path, texts: list[str]) -> Corpus:
    """Their embeddings and codes, from the store where it has them; what it has not is encoded.

    Raises BundleError, StoreError and InputError as `bitheads encode`.
    """
    with Engine.load(bundle) as engine:
        embedder = engine.embedder
        features = FeatureStore(store, engine.spec)
        rows = ((str(i), text) for i, text in enumerate(texts))
        kept = EmbeddingColumn(embedder, "float32")
        with (
            progress_bar(len(texts), True) as bar,
            StoreWriter(features, "update", embedding=kept) as writer,
        ):
            encode_texts(engine, rows, writer, "update", bar=bar, embeddings=True)
    vectors = np.empty((len(texts), embedder.spec.dim), np.float32)
    majority = np.empty((len(texts), features.spec.code_bytes), np.uint8)
    tokens = 0
    for group in FeatureStore(store).scan(columns=["embedding"]):
        places = np.array(group.ids.to_pylist(), np.int64)
        known = places < len(texts)  # of an earlier run of more
        values: Any = group.columns["embedding"].combine_chunks()
        found = values.flatten().to_numpy().reshape(len(places), -1)
        vectors[places[known]] = found[known]
        majority[places[known]] = majority_of(group.features)[known]
        tokens += int(group.features.num_tokens[known].sum())
    least, largest = embedder.weights["ranges"]
    return Corpus(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        embedder.finish(vectors, precision="ubinary"),
        embedder.finish(vectors, precision="int8"),
        (largest - least) / np.float32(255),
        majority,
        tokens / len(texts),
    )


def majority_of(features: PackedFeatures) -> Signs:
    """What most tokens of a text have in each bit, uint8 [texts, code_bytes] (docs/store.md)."""
    found = np.empty((len(features), features.spec.code_bytes), np.uint8)
    for i in range(len(features)):
        first, last = features.offsets[i : i + 2]
        bits = np.unpackbits(features.codes[first:last], axis=1)
        found[i] = np.packbits(2 * bits.sum(axis=0, dtype=np.int64) > last - first)
    return found
