"""Embeddings of Python's engine on the software device: those of the CPU.

Hidden states differ in their last bits from batch to batch; that pooling is the reference's to the
bit is shown where they do not: tests/cuda, tests/host/device.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pooling_cases import with_embedding
from software_driver import SoftwareCuda

from bitheads import Engine
from bitheads.engine.device import embeddings as device_embeddings
from bitheads.engine.features.embedding import Step
from bitheads.engine.types import Text

TEXTS: list[Text] = [
    "tide",
    "the tide was out",
    "a longer line about the harbour, its boats and the weather of that day " * 9,
    ("was it out?", "it was"),
    "",
    "tide",
    *(f"number {i} of " + "many words " * (i % 7) for i in range(20)),
]
CLOSE = 2e-3


@pytest.fixture(scope="module")
def pooled_bundle(planned_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its embedding is all poolings, one behind the other."""
    folder = tmp_path_factory.mktemp("pooled") / "bundle"
    with_embedding(planned_bundle, folder)
    return folder


@pytest.fixture
def engine(pooled_bundle: Path, device_code: Path, tensorrt_in_software: None) -> Iterator[Engine]:
    with Engine.load(pooled_bundle, backend="tensorrt") as engine:
        yield engine


@pytest.fixture(scope="module")
def vectors(pooled_bundle: Path) -> NDArray[np.float32]:
    """Those of TEXTS on a CPU."""
    with Engine.load(pooled_bundle, backend="onnxruntime") as engine:
        return np.asarray(engine.embed(TEXTS))


def assert_close(found: NDArray[np.float32] | None, vectors: NDArray[np.float32]) -> None:
    assert found is not None
    np.testing.assert_allclose(found, vectors, rtol=CLOSE, atol=CLOSE)


def test_they_are_the_cpu_s(engine: Engine, vectors: NDArray[np.float32]) -> None:
    codes = engine.encode(TEXTS).codes
    for budget in (None, 64, 20):  # as they are, recorded, launched; other shapes
        features = engine.encode(TEXTS, embeddings=True, max_batch_tokens=budget)
        assert_close(features.embeddings, vectors)
        np.testing.assert_array_equal(features.codes, codes)
        assert_close(engine.embed(TEXTS, max_batch_tokens=budget), vectors)
    assert engine.predict(TEXTS), "as before"
    (features,) = engine.encode_stream(iter(TEXTS), embeddings=True)
    assert_close(features.embeddings, vectors)


def test_only_pooled_states_come_back(engine: Engine, software_cuda: SoftwareCuda) -> None:
    """Of each different text; codes only where they are asked for, all by page-locked memory."""
    before = software_cuda.counter("bytes_to_host")
    found = engine.embed(TEXTS)
    after = software_cuda.counter("bytes_to_host")
    assert after - before == found.nbytes * len(set(TEXTS)) / len(TEXTS)
    features = engine.encode(TEXTS[:5], embeddings=True)
    assert features.embeddings is not None
    both = features.codes.nbytes + features.embeddings.nbytes
    assert software_cuda.counter("bytes_to_host") - after == both
    assert software_cuda.counter("pageable_async_copies") == 0


@pytest.mark.parametrize("seed", range(3))
def test_any_order_the_streams_allow(
    engine: Engine, vectors: NDArray[np.float32], software_cuda: SoftwareCuda, seed: int
) -> None:
    software_cuda.set_random(seed)
    for _ in range(2):  # graphs are recorded, then launched
        assert_close(engine.embed(TEXTS, max_batch_tokens=48), vectors)
        assert_close(engine.encode(TEXTS, embeddings=True).embeddings, vectors)


def test_batches_of_more_texts_than_there_is_room_for(
    engine: Engine, vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_embeddings, "MAX_POOLED_ROWS", 3)
    batches = engine.encode(TEXTS).stats.num_batches
    features = engine.encode(TEXTS, embeddings=True)
    assert_close(features.embeddings, vectors)
    assert features.stats.num_batches > batches


def test_memory_that_runs_out_means_smaller_calls(
    engine: Engine,
    vectors: NDArray[np.float32],
    software_cuda: SoftwareCuda,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Page-locked memory, which is taken when embeddings are first asked for."""
    software_cuda.fail("cuMemHostAlloc")
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        assert_close(engine.embed(TEXTS), vectors)
    assert sum(r.message.startswith("the GPU is out of memory") for r in caplog.records) == 1


def test_what_follows_pooling_is_the_cpu_s(
    planned_bundle: Path,
    device_code: Path,
    tensorrt_in_software: None,
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    with Engine.load(planned_bundle, backend="tensorrt") as engine:
        size = 2 * engine.spec.dim
    weights = {"0.weight": rng.standard_normal((24, size), np.float32) / np.float32(8)}
    steps = (Step("dense", "tanh"), Step("normalize"))
    poolings = ("weightedmean", "max")
    with_embedding(planned_bundle, tmp_path / "b", poolings, steps, weights, dim=24)
    with (
        Engine.load(tmp_path / "b", backend="tensorrt") as engine,
        Engine.load(tmp_path / "b", backend="onnxruntime") as on_cpu,
    ):
        for how in ({}, {"dim": 9, "normalize": True}):
            assert_close(engine.embed(TEXTS, **how), on_cpu.embed(TEXTS, **how))
        signs, expected = (e.embed(TEXTS, precision="ubinary") for e in (engine, on_cpu))
        assert np.unpackbits(signs ^ expected).mean() < 0.01
