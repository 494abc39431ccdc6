"""The engine on a GPU: the CPU's answers, from any thread, with and without CUDA graphs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gpu.contenders import open_uncaptured
from benchmarks.gpu.context import Bench
from bitheads import Engine
from bitheads.engine.device.graphs import Graph
from bitheads.engine.errors import BackendError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.predictions import Predictions
from bitheads.engine.sessions import DEVICE_BACKENDS
from bitheads.engine.types import Text

MIN_SIGN_AGREEMENT = 0.997
MIN_COSINE = 0.999
MB = 1 << 20


@pytest.fixture(scope="module")
def bench(plan_bundle: Path) -> Bench:
    return Bench(plan_bundle, "all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def engine(plan_bundle: Path, backend: str, gpu: Any) -> Iterator[Engine]:
    with Engine.load(plan_bundle, backend=backend) as engine:
        yield engine


@pytest.fixture(scope="module")
def on_cpu(plan_bundle: Path) -> Iterator[Engine]:
    with Engine.load(plan_bundle, backend="onnxruntime") as engine:
        yield engine


def agreement(got: PackedFeatures, expected: PackedFeatures) -> float:
    np.testing.assert_array_equal(got.offsets, expected.offsets)
    return bits_agreement(got.codes, expected.codes)


def bits_agreement(got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    return float(1 - np.unpackbits(got ^ expected).mean())


def check_labels(got: Predictions, expected: Predictions, most: float = 0.02) -> None:
    """The same top label, but for a share of `most` whose two best are close.

    A sign in 2,500 differs from the CPU's. Half of all labels that differ then are of the task with
    150 classes, which these texts are none of.
    """
    different = []
    for task, answer in expected.items():
        other = got[task].logits.argmax(axis=1) != answer.logits.argmax(axis=1)
        best = np.sort(answer.probabilities, axis=1)
        assert (best[other, -1] - best[other, -2] < 0.5).all(), task
        different.append(other.mean())
    assert np.mean(different) <= most, dict(zip(expected, different, strict=True))


def test_auto_takes_the_gpu(plan_bundle: Path, backend: str, gpu: Any) -> None:
    with Engine.load(plan_bundle) as engine:
        best = ("tensorrt",) if backend == "tensorrt" else ("tensorrt", *DEVICE_BACKENDS)
        assert engine.backend.startswith(best)


def test_codes_and_labels_of_the_cpu(bench: Bench, engine: Engine, on_cpu: Engine) -> None:
    texts = bench.shipped_texts
    assert agreement(engine.encode(texts), on_cpu.encode(texts)) >= MIN_SIGN_AGREEMENT
    expected = on_cpu.predict(texts)
    assert len(expected) >= 7
    check_labels(engine.predict(texts), expected)


def test_embeddings_of_the_cpu(bench: Bench, engine: Engine, on_cpu: Engine) -> None:
    """Hidden states differ in their last digits, so vectors do; codes are those without."""
    if bench.manifest.embedding is None:
        pytest.skip("the bundle has no embeddings")
    texts = ["", *bench.shipped_texts[:100]]
    features = engine.encode(texts, embeddings=True)
    expected = on_cpu.embed(texts, normalize=True)
    vectors = engine.embed(texts, normalize=True)
    assert (vectors * expected).sum(axis=1).min() >= MIN_COSINE
    np.testing.assert_array_equal(features.codes, engine.encode(texts).codes)
    assert features.embeddings is not None
    unit = features.embeddings / np.linalg.norm(features.embeddings, axis=1, keepdims=True)
    assert (unit * expected).sum(axis=1).min() >= MIN_COSINE


def test_stored_codes_are_answered_as_texts_are(bench: Bench, engine: Engine) -> None:
    texts = bench.shipped_texts[:100]
    check_labels(engine.predict_features(engine.encode(texts)), engine.predict(texts))


def test_every_length(bench: Bench, engine: Engine, on_cpu: Engine) -> None:
    lengths = (3, 4, 15, 16, 17, 64, 65, 128, 200, bench.manifest.encoder.max_length)
    texts: list[Text] = ["", *(bench.maker.text(length)[0] for length in lengths)]
    for some in (texts, *([text] for text in texts)):
        assert agreement(engine.encode(some), on_cpu.encode(some)) >= MIN_SIGN_AGREEMENT
    assert len(engine.encode([])) == 0


def test_the_same_bits_again(bench: Bench, engine: Engine) -> None:
    texts = bench.shipped_texts
    first, again = engine.encode(texts), engine.encode(texts)
    np.testing.assert_array_equal(first.codes, again.codes)


def test_batches_do_not_matter(bench: Bench, engine: Engine) -> None:
    texts = bench.maker.random_texts(60)
    together = engine.encode(texts)
    for budget in (1, 64, 1000):
        assert agreement(engine.encode(texts, max_batch_tokens=budget), together) >= 0.999


def test_cuda_graphs_change_nothing(
    bench: Bench, plan_bundle: Path, backend: str, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First call, recording and launches of a graph, at shapes that recording need not round up."""
    batches = [
        [bench.maker.text(seq)[0] for _ in range(rows)]
        for rows, seq in ((1, 16), (4, 32), (8, 64), (2, 48), (1, 128), (16, 32), (32, 64), (1, 48))
    ]
    launched: list[Graph] = []
    launch = Graph.launch

    def noted(graph: Graph, stream: Any) -> None:
        launched.append(graph)
        launch(graph, stream)

    monkeypatch.setattr(Graph, "launch", noted)

    def run(engine: Engine) -> NDArray[np.uint8]:
        runs = [np.concatenate([engine.encode(b).codes for b in batches]) for _ in range(4)]
        for again in runs[1:]:
            np.testing.assert_array_equal(again, runs[0])
        return runs[0]

    with open_uncaptured(bench, backend) as (engine, could_capture):
        expected = run(engine)
    assert not launched
    with Engine.load(plan_bundle, backend=backend) as engine:
        np.testing.assert_array_equal(run(engine), expected)
    assert bool(launched) == could_capture


def test_threads_take_turns(bench: Bench, engine: Engine) -> None:
    sets = [bench.maker.random_texts(40) for _ in range(4)]
    expected = [(engine.encode(texts), engine.predict(texts)) for texts in sets]
    problems: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(5):
                np.testing.assert_array_equal(
                    engine.encode(sets[index]).codes, expected[index][0].codes
                )
                answers = engine.predict(sets[index])
                for task, answer in expected[index][1].items():
                    np.testing.assert_array_equal(answers[task].logits, answer.logits)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]


def free_bytes(gpu: Any) -> int:
    with gpu.device.current("asking for free memory"):
        return int(gpu.device.cuda.mem_get_info()[0])


def test_loading_and_closing_leaks_nothing(
    bench: Bench, plan_bundle: Path, backend: str, gpu: Any
) -> None:
    free = []
    for _ in range(6):
        with Engine.load(plan_bundle, backend=backend) as engine:
            engine.predict(bench.shipped_texts[:50])
        free.append(free_bytes(gpu))
    # The first rounds load modules and libraries' workspaces, which stay.
    assert free[1] - free[-1] <= 4 * MB, free


def test_little_memory_means_smaller_calls_or_a_clear_error(
    bench: Bench, plan_bundle: Path, backend: str, gpu: Any
) -> None:
    """Whatever is left free: the same codes but for near ties, or an error that says what to do."""
    texts = bench.maker.random_texts(200)
    before = free_bytes(gpu)
    with Engine.load(plan_bundle, backend=backend) as engine:
        expected = engine.encode(texts)
        needed = before - free_bytes(gpu)
    outcomes = []
    for left in (needed + 64 * MB, needed - 16 * MB, needed // 2, 8 * MB):
        with gpu.device.current("taking memory away"):
            size = free_bytes(gpu) - max(0, left)
            hog = gpu.device.cuda.mem_alloc(size)
        try:
            with Engine.load(plan_bundle, backend=backend) as engine:
                assert agreement(engine.encode(texts), expected) >= MIN_SIGN_AGREEMENT
                outcomes.append("ran")
        except BackendError as error:
            outcomes.append(str(error))
        finally:
            with gpu.device.current("giving memory back"):
                hog.free()
    assert outcomes[0] == "ran", outcomes
    assert all(outcome == "ran" or "memory" in outcome for outcome in outcomes), outcomes
    with Engine.load(plan_bundle, backend=backend) as engine:  # nothing is broken for good
        np.testing.assert_array_equal(engine.encode(texts).codes, expected.codes)


def test_tensorrt_is_the_one_that_onnxruntime_asks_for(gpu: Any) -> None:
    """Of one version of it: the provider would not start with another."""
    tensorrt = pytest.importorskip("tensorrt")
    onnxruntime = pytest.importorskip("onnxruntime")
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    if not provider.exists():
        pytest.skip("onnxruntime-gpu is not installed")
    asked = re.search(rb"libnvinfer\.so\.(\d+)", provider.read_bytes())
    assert asked is not None
    assert tensorrt.__version__.split(".")[0] == asked[1].decode()
