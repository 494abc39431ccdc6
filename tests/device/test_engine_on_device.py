"""The engine's GPU runtime through real pycuda, on the software device.

The driver is a test's own and the encoder is ONNX Runtime; everything between them is the product:
buffers, copies, streams, the kernels' own sources. What the device reports as wrong (copies out of
bounds, memory freed while in use, leaks) fails the test that caused it, see conftest.py.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import software_tensorrt
from marks import long
from random_heads import random_head, random_span_head, random_two_texts_head
from software_driver import LAUNCH_FAILED, SoftwareCuda
from software_tensorrt import with_heads_and_plan

from bitheads import BackendError, ClosedError, DeviceMemoryError, Engine, PlanError
from bitheads.engine.bundle import GPU_GRAPHS, read_manifest
from bitheads.engine.cpu_encoder import CpuEncoder
from bitheads.engine.device.encoder import round_rows
from bitheads.engine.device.plan import PLANS
from bitheads.engine.device.profile import Profile
from bitheads.engine.features.spec import Order, Quantization
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.sessions import BACKENDS, onnxruntime_gpu
from bitheads.engine.text_chunks import LEAST_TEXTS
from bitheads.engine.types import Text, TokenBatch
from bitheads.export.plans.plan_config import PlanConfig

TEXTS = [
    "tide",
    "the tide was out",
    "a longer line about the harbour, its boats and the weather of that day " * 2,
    ("was it out?", "it was"),
    "",
    *(f"number {i} of " + "many words " * (i % 7) for i in range(30)),
]
OpenEngine = Callable[..., Engine]


@pytest.fixture
def open_engine(
    planned_bundle: Path, device_code: Path, tensorrt_in_software: None
) -> Iterator[OpenEngine]:
    """Loads engines on the software device and closes them afterwards."""
    opened: list[Engine] = []

    def load(
        bundle: Path = planned_bundle, backend: str = "tensorrt", precision: str = "auto"
    ) -> Engine:
        opened.append(Engine.load(bundle, backend=backend, precision=precision))
        return opened[-1]

    yield load
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def on_cpu(planned_bundle: Path) -> Engine:
    return Engine.load(planned_bundle, backend="onnxruntime")


def test_codes_are_those_of_the_cpu(open_engine: OpenEngine, on_cpu: Engine) -> None:
    engine = open_engine()
    assert engine.backend == "tensorrt fp16"
    expected = on_cpu.encode(TEXTS)
    for budget in (None, 20, 64, 200):
        features = engine.encode(TEXTS, max_batch_tokens=budget)
        np.testing.assert_array_equal(features.codes, expected.codes)
        np.testing.assert_array_equal(features.offsets, expected.offsets)
        stats = features.stats
        assert (stats.num_texts, stats.num_tokens) == (len(TEXTS), len(features.codes))


def test_answers_are_those_of_the_cpu(open_engine: OpenEngine, on_cpu: Engine) -> None:
    engine = open_engine()
    expected = on_cpu.predict(TEXTS)
    stored = engine.encode(TEXTS)
    for answers in (engine.predict(TEXTS), engine.predict_features(stored)):
        assert list(answers) == list(expected)
        for task, prediction in expected.items():
            np.testing.assert_allclose(
                answers[task].probabilities, prediction.probabilities, atol=2e-3
            )
            assert answers[task].labels == prediction.labels
    some = engine.predict(TEXTS[:3], ["mean"])
    assert list(some) == ["mean"]
    np.testing.assert_allclose(some["mean"].logits, expected["mean"].logits[:3], atol=5e-3)


def test_words_are_answered_as_on_the_cpu(open_engine: OpenEngine, planned_bundle: Path) -> None:
    found = []
    for engine in (open_engine(), Engine.load(planned_bundle, backend="onnxruntime")):
        engine.use_head(engine.encoder.load_head(random_span_head(engine.spec)))
        found.append(engine.predict(TEXTS)["names"])
        assert engine.predict_features(engine.encode(TEXTS, words=True))["names"].words is not None
    (answer, expected) = found
    assert answer.words is not None
    assert expected.words is not None
    assert np.array_equal(answer.words.table, expected.words.table)
    np.testing.assert_allclose(answer.logits, expected.logits, atol=3e-2)
    assert sum(map(len, answer.spans)) > 20
    assert answer.spans[3] == (), "of a pair"


def test_pairs_of_texts_that_are_encoded_by_themselves(
    open_engine: OpenEngine, on_cpu: Engine
) -> None:
    """Vectors are the device's, and what is made of them is what the processor makes of them."""
    engine = open_engine()
    heads = [
        random_two_texts_head(engine.spec, f"apart-{seed}", seed=seed, vector_size=size)
        for seed, size in enumerate((None, 9))
    ]
    for head in heads:
        engine.use_head(engine.encoder.load_head(head))
    singles = [text for text in TEXTS if isinstance(text, str)]
    rows = np.array([(i, j) for i in range(3) for j in range(5, 9)])
    pairs: list[Text] = [(singles[i], singles[j]) for i, j in rows]
    features = engine.encode(singles)
    vectors = engine.encoder.text_vectors(features, heads)
    wanted = on_cpu.encoder.text_vectors(features, [*map(on_cpu.encoder.load_head, heads)])
    for got, exact in zip(vectors, wanted, strict=True):
        np.testing.assert_allclose(got, exact, atol=3e-2)
        assert exact.std(axis=0).min() > 1e-2
    outputs = on_cpu.encoder.pair_outputs(vectors, rows, heads)
    mixed = engine.predict([*TEXTS[:5], *pairs])
    alone = engine.predict(pairs, [head.task for head in heads])
    stored = engine.predict_pairs(features, rows)
    for head, exact in zip(heads, outputs, strict=True):
        assert np.isnan(mixed[head.task].logits[:3]).all()
        assert mixed[head.task].answered[3], "the pair among them"
        for found in (mixed[head.task].logits[5:], alone[head.task].logits):
            np.testing.assert_array_equal(found, exact)
        np.testing.assert_array_equal(stored[head.task].logits, exact)
    assert alone.stats.num_windows == len({text for pair in pairs for text in pair})


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {"thresholds": "mean"}),
        ("roberta", {"layers": "0-2", "order": Order.SIGN_THEN_VOTE}),
        ("bert", {"quantization": Quantization.UINT8}),
        ("distilbert", {"quantization": Quantization.FLOAT16, "precision": "fp32"}),
    ],
    ids=["thresholds", "vote", "uint8", "float16"],
)
def test_every_kind_of_code(
    build_bundle: Callable[..., Path],
    open_engine: OpenEngine,
    family: str,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    bundle = with_heads_and_plan(build_bundle(family, **options), tmp_path / "bundle")
    engine = open_engine(bundle)
    with Engine.load(bundle, backend="onnxruntime") as on_cpu:
        np.testing.assert_array_equal(engine.encode(TEXTS).codes, on_cpu.encode(TEXTS).codes)
        answers, expected = engine.predict(TEXTS), on_cpu.predict(TEXTS)
    for task, prediction in expected.items():
        np.testing.assert_allclose(answers[task].probabilities, prediction.probabilities, atol=2e-3)


def test_tensorrt_rtx_runs_on_its_own_graphs(
    tiny_bundle: Path,
    open_engine: OpenEngine,
    on_cpu: Engine,
    software_cuda: SoftwareCuda,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It records graphs by itself, is told so, and none is recorded around it."""
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", software_tensorrt)
    strategy = software_tensorrt.RtxCudaGraphStrategy
    monkeypatch.setattr(software_tensorrt, "CudaGraphStrategy", strategy, raising=False)
    engine = open_engine(with_heads_and_plan(tiny_bundle, tmp_path / "b", flavour="tensorrt-rtx"))
    assert engine.backend == "tensorrt-rtx fp16"
    expected = on_cpu.encode(TEXTS).codes
    for _ in range(3):
        np.testing.assert_array_equal(engine.encode(TEXTS).codes, expected)
    assert software_cuda.counter("graph_launches") == 0


class OnnxRuntimeOnHost(onnxruntime_gpu.Session):
    """The CUDA provider's session on the CPU provider: device memory is the process's own here.

    A run is work on the stream, as the CUDA provider's kernels are.
    """

    memory = "cpu"
    driver: SoftwareCuda
    failures: ClassVar[list[str]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._on = arguments[-1]

    def _run(self, binding: Any) -> None:
        if self.failures:
            raise DeviceMemoryError(self.failures.pop())
        self.driver.enqueue(self._on.handle, lambda: super(OnnxRuntimeOnHost, self)._run(binding))


@pytest.fixture
def onnxruntime_on_host(software_cuda: SoftwareCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntimeOnHost, "driver", software_cuda, raising=False)
    monkeypatch.setitem(onnxruntime_gpu.PROVIDERS, "onnxruntime-cuda", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_gpu, "Session", OnnxRuntimeOnHost)
    monkeypatch.setattr(onnxruntime_gpu, "provider_options", lambda device, stream: {})


def test_onnxruntime_needs_no_plan(
    onnxruntime_on_host: None, own_planned_bundle: Path, open_engine: OpenEngine, on_cpu: Engine
) -> None:
    shutil.rmtree(own_planned_bundle / PLANS)
    engine = open_engine(own_planned_bundle, "onnxruntime-cuda")
    assert engine.backend == "onnxruntime-cuda fp16"
    expected = on_cpu.predict(TEXTS)
    np.testing.assert_array_equal(engine.encode(TEXTS).codes, on_cpu.encode(TEXTS).codes)
    for task, answer in engine.predict(TEXTS).items():
        np.testing.assert_allclose(answer.probabilities, expected[task].probabilities, atol=2e-3)


def test_auto_takes_onnxruntime_where_no_plan_fits(
    onnxruntime_on_host: None, own_planned_bundle: Path, open_engine: OpenEngine
) -> None:
    shutil.rmtree(own_planned_bundle / PLANS)
    assert open_engine(own_planned_bundle, "auto").backend == "onnxruntime-cuda fp16"


def test_memory_that_runs_out_means_smaller_calls(
    onnxruntime_on_host: None,
    own_planned_bundle: Path,
    open_engine: OpenEngine,
    on_cpu: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = open_engine(own_planned_bundle, "onnxruntime-cuda")
    OnnxRuntimeOnHost.failures[:] = ["full", "full"]
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        features = engine.encode(TEXTS)
    np.testing.assert_array_equal(features.codes, on_cpu.encode(TEXTS).codes)
    assert [r.message.startswith("the GPU is out of memory") for r in caplog.records] == [True] * 2
    OnnxRuntimeOnHost.failures[:] = ["full"]
    with pytest.raises(DeviceMemoryError, match="full"):
        engine.encode(TEXTS[:1])


def test_memory_that_runs_out_again_cuts_all_that_is_left(
    onnxruntime_on_host: None, own_planned_bundle: Path, open_engine: OpenEngine, on_cpu: Engine
) -> None:
    """Pieces that were cut for larger calls do not fit into the codes of smaller ones."""
    texts: list[Text] = [f"{i} boats in the harbour" for i in range(10, 42)]  # without padding
    engine = open_engine(own_planned_bundle, "onnxruntime-cuda")
    OnnxRuntimeOnHost.failures[:] = ["full"] * 3
    np.testing.assert_array_equal(engine.encode(texts).codes, on_cpu.encode(texts).codes)


@pytest.mark.parametrize("seed", range(6))
def test_any_order_the_streams_allow(
    open_engine: OpenEngine, on_cpu: Engine, software_cuda: SoftwareCuda, seed: int
) -> None:
    """The device runs ahead of the host, or far behind it: nothing is overwritten too early."""
    engine = open_engine()
    software_cuda.set_random(seed)
    expected = on_cpu.predict(TEXTS, ["attention"])["attention"].probabilities
    for _ in range(2):  # graphs are recorded, then launched
        features = engine.encode(TEXTS, max_batch_tokens=48)
        np.testing.assert_array_equal(features.codes, on_cpu.encode(TEXTS).codes)
        answers = engine.predict(TEXTS, ["attention"], max_batch_tokens=48)
        np.testing.assert_allclose(answers["attention"].probabilities, expected, atol=2e-3)


@pytest.mark.parametrize("block_texts", [3, *long(1, 100)])
def test_heads_in_parts_and_texts_in_blocks(
    open_engine: OpenEngine, on_cpu: Engine, block_texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace for one head at a time gives the same bits as one for all."""
    whole = open_engine()
    expected = whole.predict(TEXTS)
    monkeypatch.setattr("bitheads.engine.device.heads.MIN_BLOCK_TEXTS", block_texts)
    monkeypatch.setattr("bitheads.engine.device.heads.WORKSPACE_BYTES", 300 * block_texts)
    cut = open_engine()
    for answers in (cut.predict(TEXTS), cut.predict_features(cut.encode(TEXTS))):
        for task, prediction in expected.items():
            np.testing.assert_array_equal(answers[task].logits, prediction.logits)
    group = next(iter(cut._encoder._heads._groups.values()))
    assert len(group._parts) == len(expected)


def test_a_recording_that_is_refused(
    open_engine: OpenEngine,
    on_cpu: Engine,
    software_cuda: SoftwareCuda,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The engine goes on without graphs, with one warning."""
    engine = open_engine()
    software_cuda.fail("cuStreamBeginCapture", times=9, status=900)
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        for _ in range(4):
            codes = engine.encode(TEXTS[:1]).codes
    np.testing.assert_array_equal(codes, on_cpu.encode(TEXTS[:1]).codes)
    assert [r.message.startswith("no CUDA graphs from now on") for r in caplog.records] == [True]


def test_only_codes_and_answers_come_back(
    open_engine: OpenEngine, software_cuda: SoftwareCuda
) -> None:
    engine = open_engine()
    before = software_cuda.counter("bytes_to_host")
    features = engine.encode(TEXTS)
    after_codes = software_cuda.counter("bytes_to_host")
    assert after_codes - before == features.codes.nbytes
    answers = engine.predict(TEXTS)
    after_answers = software_cuda.counter("bytes_to_host")
    assert after_answers - after_codes == sum(p.logits.nbytes for p in answers.values())


def test_nothing_is_allocated_after_loading(
    open_engine: OpenEngine, software_cuda: SoftwareCuda
) -> None:
    engine = open_engine()
    engine.predict(TEXTS)
    allocations = software_cuda.counter("calls:cuMemAlloc")
    for _ in range(3):
        engine.predict(TEXTS)
        engine.encode(TEXTS)
    assert software_cuda.counter("calls:cuMemAlloc") == allocations


def test_small_batches_become_graphs(open_engine: OpenEngine, software_cuda: SoftwareCuda) -> None:
    """A shape's second call records it; from then on it is one launch."""
    engine = open_engine()
    first = engine.encode(["the tide was out"])
    assert software_cuda.counter("graph_launches") == 0
    for _ in range(3):
        again = engine.encode(["the tide was out"])
        np.testing.assert_array_equal(again.codes, first.codes)
    assert software_cuda.counter("graph_launches") == 3
    # Other words of about the same length take the same graph.
    other = engine.encode(["a boat came"])
    assert software_cuda.counter("graph_launches") == 4
    np.testing.assert_array_equal(engine.encode(["a boat came"]).codes, other.codes)


def test_few_sizes_serve_any_number_of_rows() -> None:
    sizes = [round_rows(rows) for rows in range(1, 2049)]
    assert sizes[:17] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 10, 12, 12, 14, 14, 16, 16, 20]
    assert all(rows <= size < 1.25 * rows for rows, size in enumerate(sizes, 1))
    assert len({*sizes}) == 4 * 9 + 4, "four for each of the nine powers of two above 4"


def test_old_graphs_are_forgotten(
    open_engine: OpenEngine, on_cpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitheads.engine.device.encoder.MAX_GRAPHS", 2)
    monkeypatch.setattr("bitheads.engine.device.encoder.SEQ_STEP", 1)
    engine = open_engine()
    texts = ["a " * n for n in range(1, 7)] * 3
    for text in texts:
        np.testing.assert_array_equal(engine.encode([text]).codes, on_cpu.encode([text]).codes)


def test_two_threads_take_turns(open_engine: OpenEngine, on_cpu: Engine) -> None:
    engine = open_engine()
    expected = on_cpu.encode(TEXTS)
    with ThreadPoolExecutor(2) as threads:
        for features in threads.map(engine.encode, [TEXTS] * 4):
            np.testing.assert_array_equal(features.codes, expected.codes)


def test_two_engines_share_the_device(open_engine: OpenEngine, on_cpu: Engine) -> None:
    first, second = open_engine(), open_engine()
    expected = on_cpu.encode(TEXTS).codes
    np.testing.assert_array_equal(first.encode(TEXTS).codes, expected)
    first.close()
    np.testing.assert_array_equal(second.encode(TEXTS).codes, expected)


def test_a_large_call_is_tokenized_while_it_runs(
    open_engine: OpenEngine, on_cpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunk after chunk of texts goes through one pass of the device."""
    engine = open_engine()
    texts: list[Text] = [f"{i} {'small boats ' * (i % 9)}came in" for i in range(LEAST_TEXTS)]
    texts[::7] = [(str(text), "the tide was out") for text in texts[::7]]
    tokenized, passes = [], []
    tokenize, run = type(engine.tokenizer).__call__, type(engine.encoder)._run

    def count_texts(this: Any, some: Any, *args: Any, **options: Any) -> Any:
        tokenized.append(len(some))
        return tokenize(this, some, *args, **options)

    def count_passes(this: Any, *args: Any) -> Any:
        passes.append(len(tokenized))
        return run(this, *args)

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.tokenizer), "__call__", count_texts)
        patch.setattr(type(engine.encoder), "_run", count_passes)
        found = engine.predict(texts, max_batch_tokens=24)
        features = engine.encode(texts, max_batch_tokens=24)
    assert len(tokenized) > 8, "chunks of both calls"
    assert passes == [0, len(tokenized) // 2]
    assert sum(tokenized) == 2 * len(texts)
    np.testing.assert_array_equal(features.codes, on_cpu.encode(texts).codes)
    for task, expected in on_cpu.predict(texts).items():
        np.testing.assert_allclose(found[task].probabilities, expected.probabilities, atol=2e-3)


def test_a_caller_who_stops_early(open_engine: OpenEngine, on_cpu: Engine) -> None:
    """Ctrl-C between two batches: what is in flight ends before its memory is used again."""
    engine = open_engine()
    work = engine._passes.tokenize(TEXTS, 40)
    codes = np.empty((int(work.offsets[-1]), engine.spec.code_bytes), np.uint8)
    batches = engine._encoder.encode(work.batches(codes))
    next(batches)
    batches.close()
    np.testing.assert_array_equal(engine.encode(TEXTS).codes, on_cpu.encode(TEXTS).codes)


def test_a_call_after_close(open_engine: OpenEngine) -> None:
    engine = open_engine()
    features = engine.encode(TEXTS[:2])
    encoder, batches = engine.encoder, iter(())
    engine.close()
    engine.close()
    encoder.close()
    for call in (
        lambda: engine.encode(TEXTS),
        lambda: engine.predict_features(features),
        lambda: list(encoder.encode(batches)),
        lambda: encoder.predict(features, []),
        encoder.open_runners,
    ):
        with pytest.raises(ClosedError, match=r"is closed: got a call.*Load it again"):
            call()


@pytest.mark.long
def test_many_sets_of_heads_from_two_threads(
    open_engine: OpenEngine, on_cpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that is no longer kept is freed only when nothing uses it."""
    monkeypatch.setattr("bitheads.engine.device.heads.MAX_GROUPS", 1)
    engine = open_engine()
    expected = on_cpu.predict(TEXTS)

    def predict(task: str) -> None:
        answer = engine.predict(TEXTS, [task], max_batch_tokens=64)[task]
        np.testing.assert_allclose(answer.probabilities, expected[task].probabilities, atol=2e-3)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(predict, [*expected] * 3))


def test_no_texts(open_engine: OpenEngine) -> None:
    engine = open_engine()
    assert engine.encode([]).codes.shape == (0, engine.spec.code_bytes)
    assert engine.predict([])["mean"].logits.shape[0] == 0


def test_heads_come_and_go(open_engine: OpenEngine, on_cpu: Engine, tmp_path: Path) -> None:
    engine = open_engine()
    head = random_head(engine.spec, "late", classes=7, seed=9)
    path = tmp_path / "late.safetensors"
    write_head(head, path)
    engine.add_head(path)
    late = engine.predict(TEXTS)["late"]
    engine.remove_head("late")
    assert "late" not in engine.predict(TEXTS)
    on_cpu.add_head(path)
    try:
        expected = on_cpu.predict(TEXTS, ["late"])["late"]
    finally:
        on_cpu.remove_head("late")
    np.testing.assert_allclose(late.probabilities, expected.probabilities, atol=2e-3)


def test_a_failing_batch_leaves_the_engine_usable(
    open_engine: OpenEngine, on_cpu: Engine, software_cuda: SoftwareCuda
) -> None:
    engine = open_engine()
    software_cuda.fail("cuLaunchKernel", after_calls=2, status=LAUNCH_FAILED)
    with pytest.raises(BackendError, match="the GPU failed while running the encoder"):
        engine.encode(TEXTS, max_batch_tokens=40)
    np.testing.assert_array_equal(engine.encode(TEXTS).codes, on_cpu.encode(TEXTS).codes)


def test_little_memory_means_smaller_calls(
    open_engine: OpenEngine,
    on_cpu: Engine,
    software_cuda: SoftwareCuda,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with open_engine() as engine:
        roomy = engine._encoder.max_batch_tokens
    peak = software_cuda.counter("device_bytes_peak")
    software_cuda.set_total_memory(peak * 2 // 3)
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        engine = open_engine()
    assert 64 <= engine._encoder.max_batch_tokens < roomy
    assert "the GPU has memory for" in caplog.text
    np.testing.assert_array_equal(engine.encode(TEXTS).codes, on_cpu.encode(TEXTS).codes)


def test_too_little_memory_is_an_error(
    open_engine: OpenEngine, software_cuda: SoftwareCuda
) -> None:
    software_cuda.set_total_memory(20_000)
    with pytest.raises(DeviceMemoryError, match=r"no memory left while .* Pass a smaller"):
        open_engine()


def test_a_text_beyond_every_profile(
    open_engine: OpenEngine, planned_bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(planned_bundle, tmp_path / "bundle"))
    shutil.rmtree(bundle / PLANS)
    software_tensorrt.write_software_plan(bundle, [Profile((1, 1), (1, 8), (4, 8))])
    engine = open_engine(bundle)
    assert len(engine.encode(["tide"]).codes) < 8
    with pytest.raises(BackendError, match=r"a text of \d+ tokens.*larger profile"):
        engine.encode([TEXTS[2]])


@pytest.fixture
def own_planned_bundle(planned_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planned_bundle, tmp_path / "bundle"))


def test_a_truncated_plan_is_refused(open_engine: OpenEngine, own_planned_bundle: Path) -> None:
    plan = next((own_planned_bundle / PLANS).glob("*.plan"))
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(PlanError, match=r"bitheads plan"):
        open_engine(own_planned_bundle)


def test_another_gpu_is_refused(
    open_engine: OpenEngine, own_planned_bundle: Path, software_cuda: SoftwareCuda
) -> None:
    software_cuda.set_compute_capability(9, 0)
    with pytest.raises(PlanError, match=r"compute capability 8\.6, expected 9\.0"):
        open_engine(own_planned_bundle)


def test_a_plan_of_a_fleet_runs_on_another_gpu_and_a_later_version(
    open_engine: OpenEngine, own_planned_bundle: Path, software_cuda: SoftwareCuda, on_cpu: Engine
) -> None:
    """It brings its own runtime, which TensorRT refuses to run unless it is told to."""
    profiles, fleet = software_tensorrt.PROFILES, ("version", "ampere+")
    software_tensorrt.write_software_plan(
        own_planned_bundle, profiles, version="10.98.0.3", compatibility=fleet
    )
    software_cuda.set_compute_capability(9, 0)
    codes = open_engine(own_planned_bundle).encode(TEXTS).codes
    np.testing.assert_array_equal(codes, on_cpu.encode(TEXTS).codes)


class OnHost:
    """A session of a CPU that runs a graph as the software TensorRT does."""

    backend, precision = "onnxruntime", "fp32"

    def __init__(self, graph: Path, output_names: list[str]) -> None:
        self._session = software_tensorrt.open_graph(graph)
        self._outputs = output_names

    def run(self, batch: TokenBatch) -> list[Any]:
        inputs = {port.name: getattr(batch, port.name) for port in self._session.get_inputs()}
        return list(self._session.run(self._outputs, inputs))


@pytest.mark.parametrize("precision", GPU_GRAPHS)
def test_a_quantized_graph_runs_where_it_is_asked_for(
    open_engine: OpenEngine, build_bundle: Callable[..., Path], tmp_path: Path, precision: str
) -> None:
    """And where it is not, the bundle's own; each by its own plan."""
    source = build_bundle("bert", plan=PlanConfig(flavour="none", precision=precision))
    bundle = with_heads_and_plan(source, tmp_path / "bundle")
    with pytest.raises(PlanError, match=f"(?s)no plan .* tensorrt --plan-precision {precision}"):
        open_engine(bundle, precision=precision)
    software_tensorrt.write_software_plan(bundle, software_tensorrt.PROFILES, precision=precision)
    engine, plain = open_engine(bundle, precision=precision), open_engine(bundle)
    assert (engine.backend, plain.backend) == (f"tensorrt {precision}", "tensorrt fp16")
    manifest = read_manifest(bundle)
    session = OnHost(bundle / GPU_GRAPHS[precision], manifest.output_names)
    with Engine(manifest, plain._tokenizer, CpuEncoder(session, manifest.spec, None)) as on_cpu:
        expected = on_cpu.encode(TEXTS).codes
    found, other = (one.encode(TEXTS).codes for one in (engine, plain))
    # Where a number lies between two of 8 bits, the batch decides by a last digit.
    assert np.mean(found != expected) < 0.1 * np.mean(found != other) < 0.05


@pytest.mark.parametrize(
    ("backend", "name"), [("auto", "encoder.fp8.onnx"), ("onnxruntime-cuda", "own graph")]
)
def test_a_quantized_graph_that_cannot_be_had(
    open_engine: OpenEngine, planned_bundle: Path, backend: str, name: str
) -> None:
    with pytest.raises(BackendError, match=f"got 'fp8' with backend .*{name}"):
        open_engine(planned_bundle, backend, "fp8")


def test_auto_takes_the_gpu(planned_bundle: Path, open_engine: OpenEngine) -> None:
    assert open_engine(backend="auto").backend == "tensorrt fp16"


def test_auto_falls_back_with_one_warning(
    open_engine: OpenEngine,
    own_planned_bundle: Path,
    software_cuda: SoftwareCuda,
    caplog: pytest.LogCaptureFixture,
) -> None:
    software_cuda.set_compute_capability(9, 0)
    with caplog.at_level(logging.WARNING, logger="bitheads"):
        engine = open_engine(own_planned_bundle, backend="auto")
    assert engine.backend.split()[0] in BACKENDS
    assert len(caplog.records) == 1
    assert "running on the CPU" in caplog.text
    assert "bitheads plan" in caplog.text


@pytest.mark.parametrize("damage", ["missing", "changed", "version"])
def test_device_code_that_does_not_fit(
    open_engine: OpenEngine, device_code: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = device_code.with_suffix(".json")
    if damage == "missing":
        device_code.unlink()
    elif damage == "changed":
        device_code.write_bytes(device_code.read_bytes() + b"\0")
    else:
        about.write_text(json.dumps({**json.loads(about.read_text()), "abi_version": 0}))
    with pytest.raises(BackendError, match=r"device code .*bitheads device-code"):
        open_engine()
