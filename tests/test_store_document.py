"""What docs/store.md shows runs, one example after the other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_heads import random_head, random_span_head
from store_cases import fill, make_features, make_features_of_words, make_ids, make_spec

from bitheads.engine.features import pack
from bitheads.engine.features.embedding import RANGES, Embedder, EmbeddingSpec
from bitheads.engine.heads.cpu import load_head
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill
from bitheads.engine.store import EmbeddingColumn, FeatureStore, StoreWriter

DOCUMENT = Path(__file__).parent.parent / "docs" / "store.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "features")
    head = TaskHead(load_head(random_head(make_spec(), task="topic")), "0")
    job = Backfill(FeatureStore("features"), [head], "answers")
    job.run(job.prepare())
    for seed in (1, 2):
        versions = TaskHead(load_head(random_head(make_spec(), task="topic", seed=seed)), f"{seed}")
        job = Backfill(FeatureStore("features"), [versions], "versions", other_heads="keep")
        job.run(job.prepare())
    with StoreWriter(FeatureStore("with_words", make_spec())) as writer:
        writer.append(make_ids(20), make_features_of_words(make_spec(), 20))
    embedder = Embedder(EmbeddingSpec(("mean",), (), 6), {RANGES: np.zeros((2, 6), np.float32)})
    vectors = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    column = EmbeddingColumn(embedder)
    with StoreWriter(FeatureStore("reviews", make_spec()), embedding=column) as writer:
        reviews = replace(make_features(make_spec(), 20), embeddings=vectors)
        writer.append(make_ids(20), reviews, {"lang": ["de", "en"] * 10})
    head = TaskHead(load_head(random_span_head(make_spec(), task="names")), "0")
    job = Backfill(FeatureStore("with_words"), [head], "answers")
    job.run(job.prepare())
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, DOCUMENT.name, "exec"), names)
    assert names["bits"].shape == (names["frame"]["num_tokens"][0], 64)

    # As sentence-transformers and Vespa pack: numpy.packbits of what is above zero.
    vectors = np.random.default_rng(0).normal(size=(1, 3, 64)).astype(np.float32)
    codes = np.empty((3, 8), np.uint8)
    offsets = np.zeros(1, np.int64)
    pack.pool_and_pack([vectors], np.array([3]), offsets, codes, quantization="sign")
    assert np.array_equal(codes, np.packbits(vectors[0] > 0, axis=1))
    assert names["ubinary"](codes[:1]).tolist() == codes[0].tolist()
    assert names["binary"](codes[:1]).tolist() == (codes[0].astype(int) - 128).tolist()
    majority = (vectors[0] > 0).sum(axis=0) > 1.5
    assert names["ubinary"](codes).tolist() == np.packbits(majority).tolist()
    blocks = names["vespa_field"](codes)["blocks"]
    assert bytes.fromhex(blocks["2"]) == codes[2].tobytes()
