"""The C++ host's embeddings on the software device: the reference's, of the formula's states."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from formula_sessions import FormulaPlugin, FormulaSession, hidden_state
from formula_texts import TEXTS, assert_same_codes
from numpy.typing import NDArray
from pooling_cases import with_embedding
from software_driver import SoftwareCuda

from benchmarks.contenders.host_library import HostEngine
from bitheads import Engine, PackedFeatures
from bitheads.engine.batching import pad_batch
from bitheads.engine.bundle import read_embedder, read_manifest
from bitheads.engine.features.embedding import POOLINGS, Embedder, EmbeddingSpec, Step
from bitheads.engine.types import PlacedBatch, Text

OpenEngine = Callable[..., HostEngine]

LONG = "a longer line about the harbour, its boats and the weather of that day " * 20


@pytest.fixture(scope="module")
def pooled_bundle(host_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its embedding is all poolings, one behind the other."""
    folder = tmp_path_factory.mktemp("pooled") / "bundle"
    with_embedding(host_bundle, folder)
    return folder


@pytest.fixture(scope="module")
def vectors(python_engine: Engine) -> NDArray[np.float32]:
    """Those of TEXTS, of all poolings."""
    embedder = Embedder(EmbeddingSpec(POOLINGS, (), python_engine.spec.dim * len(POOLINGS)))
    return vectors_of(python_engine, embedder, TEXTS)


def vectors_of(engine: Engine, embedder: Embedder, texts: Sequence[Text]) -> NDArray[np.float32]:
    """float32 [texts, dim] of the formula's last states."""
    spec, found = engine.spec, []
    for tokens in engine._tokenizer(texts):
        ids = np.array([tokens.ids], np.int64)
        types = (np.arange(ids.size)[None] >= tokens.num_first).astype(np.int64)
        states = hidden_state(ids, types, spec.layers[-1], spec.dim)
        found.append(embedder(states, np.array([ids.size]))[0])
    return np.stack(found)


@pytest.mark.parametrize("budget", [0, 48])
@pytest.mark.parametrize("dtype", [0, 1], ids=["float32", "float16"])
def test_they_are_the_reference_s(
    open_engine: OpenEngine,
    formula: FormulaPlugin,
    pooled_bundle: Path,
    expected: PackedFeatures,
    vectors: NDArray[np.float32],
    software_cuda: SoftwareCuda,
    budget: int,
    dtype: int,
) -> None:
    """To the bit, beside codes and alone; of what the device has, codes and pooled states alone
    come back."""
    formula.set(type=dtype)
    engine = open_engine(pooled_bundle, max_batch_tokens=budget)
    assert engine.embedding_dim == vectors.shape[1]
    allocations = software_cuda.counter("calls:cuMemAlloc")
    for _ in range(3):  # as they are, recorded, launched
        before = software_cuda.counter("bytes_to_host")
        codes, embeddings = engine.encode_with_embeddings(TEXTS)
        brought = software_cuda.counter("bytes_to_host") - before
        assert_same_codes(codes, expected)
        np.testing.assert_array_equal(embeddings, vectors)
        assert brought == codes.codes.nbytes + embeddings.nbytes
        np.testing.assert_array_equal(engine.embed(TEXTS), vectors)
        assert_same_codes(engine.encode(TEXTS), expected)
    assert software_cuda.counter("calls:cuMemAlloc") == allocations
    assert software_cuda.counter("pageable_async_copies") == 0


@pytest.mark.parametrize("seed", range(3))
def test_any_order_the_streams_allow(
    open_engine: OpenEngine,
    pooled_bundle: Path,
    vectors: NDArray[np.float32],
    software_cuda: SoftwareCuda,
    seed: int,
) -> None:
    engine = open_engine(pooled_bundle, max_batch_tokens=48)
    software_cuda.set_random(seed)
    for _ in range(2):
        np.testing.assert_array_equal(engine.embed(TEXTS), vectors)


def test_callers_share_batches(
    open_engine: OpenEngine, pooled_bundle: Path, vectors: NDArray[np.float32]
) -> None:
    """Some of which ask for codes alone."""
    engine = open_engine(pooled_bundle, share_batches=True)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(engine.embed, [text]) for text in TEXTS]
        codes = [threads.submit(engine.encode, [text]) for text in TEXTS[:9]]
        for own, vector in zip(asked, vectors, strict=True):
            np.testing.assert_array_equal(own.result(timeout=60)[0], vector)
        for features in codes:
            assert features.result(timeout=60).codes.any()


def test_long_texts_and_what_follows_pooling(
    open_engine: OpenEngine, host_bundle: Path, tmp_path: Path
) -> None:
    """Products and lengths are summed in another order than NumPy's."""
    with Engine.load(host_bundle, "openvino") as engine:
        dim = engine.spec.dim
    rng = np.random.default_rng(0)
    weights = {
        "0.weight": rng.standard_normal((24, 2 * dim), np.float32),
        "0.bias": rng.standard_normal(24, np.float32),
    }
    steps = (Step("dense", "tanh"), Step("normalize"))
    embedder = with_embedding(
        host_bundle, tmp_path / "b", ("weightedmean", "max"), steps, weights, 24, max_length=300
    )
    host = open_engine(tmp_path / "b")
    texts: list[Text] = [LONG, "tide", LONG[:400], ""]
    with Engine.load(tmp_path / "b", "openvino") as engine:
        vectors = vectors_of(engine, embedder, texts)
        longest = max(len(tokens.ids) for tokens in engine._tokenizer(texts))
    assert longest == 300
    np.testing.assert_allclose(host.embed(texts), vectors, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(host.embed(texts, dim=5), host.embed(texts)[:, :5])
    lengths = np.linalg.norm(host.embed(texts, dim=5, normalize=True), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_python_s_encoder_gives_the_same_bits(
    pooled_bundle: Path,
    python_engine: Engine,
    vectors: NDArray[np.float32],
    software_cuda: SoftwareCuda,
    device_code_file: Path,
) -> None:
    """Of batches of several lengths, with codes and without, before and in graphs."""
    pytest.importorskip("pycuda", reason="pycuda is not installed, type: make device")
    from bitheads.engine.device.code import DeviceCode
    from bitheads.engine.device.driver import Device
    from bitheads.engine.device.encoder import DeviceEncoder

    manifest = read_manifest(pooled_bundle)
    spec, longest = manifest.spec, manifest.encoder.max_length
    device = Device()
    with device.current("loading the encoder"):
        stream = device.cuda.Stream()
        code = DeviceCode(device, device_code_file)
        session = FormulaSession(software_cuda, stream, spec.layers, spec.dim, longest)
        embedder = read_embedder(pooled_bundle, manifest)
        encoder = DeviceEncoder(device, code, session, spec, None, stream, embedder)
    tokens = python_engine._tokenizer(TEXTS)
    for first in (0, 0, 0, 7):
        found = np.full_like(vectors, -7)
        chosen = np.arange(first, len(TEXTS))[::-1]
        batch = pad_batch([tokens[i] for i in chosen], 0, max(len(t.ids) for t in tokens))
        placed = PlacedBatch(batch, chosen, np.zeros(len(chosen), np.int64), None, found)
        list(encoder.encode([placed]))
        np.testing.assert_array_equal(found[first:], vectors[first:])
        assert (found[:first] == -7).all()
    encoder.close()
    del stream, encoder, device, code, session
    gc.collect()
