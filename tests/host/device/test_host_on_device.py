"""The C++ host on the software device: the same codes, the same logits, whatever happens.

The encoder is a formula of token ids, which the plugin computes when the stream gets there; all
else is the product. What the device reports as wrong (copies out of bounds, memory freed while in
use, leaks) fails the test that caused it, see conftest.py.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formula_sessions import FormulaPlugin, FormulaSession
from formula_texts import SINGLES, TEXTS, assert_same_codes, expected_codes
from numpy.typing import NDArray
from random_heads import random_head, random_span_head, random_two_texts_head
from software_driver import SoftwareCuda

from benchmarks.contenders.host_library import (
    HostEngine,
    HostLibrary,
)
from bitheads import Engine, PackedFeatures
from bitheads.engine.bundle import MANIFEST, _hash, read_calibration, read_manifest
from bitheads.engine.device.encoder import (
    GRAPH_TOKENS,
    MAX_GRAPHS,
    SEQ_STEP,
    DeviceEncoder,
    round_rows,
)
from bitheads.engine.features.spec import Order, Quantization
from bitheads.engine.heads.head_file import read_head, write_head
from bitheads.engine.types import PlacedBatch, Text, TokenBatch

OpenEngine = Callable[..., HostEngine]


@pytest.mark.parametrize("budget", [0, 20, 64, 200])
@pytest.mark.parametrize("dtype", [0, 1], ids=["float32", "float16"])
def test_codes_are_those_of_the_cpu_kernels(
    open_engine: OpenEngine,
    formula: FormulaPlugin,
    expected: PackedFeatures,
    budget: int,
    dtype: int,
) -> None:
    formula.set(type=dtype)
    engine = open_engine(max_batch_tokens=budget)
    assert engine.backend == "formula fp16"
    assert engine.why_not_gpu == ""
    for _ in range(3):  # as they are, recorded, launched
        assert_same_codes(engine.encode(TEXTS), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"thresholds": "mean"},
        {"layers": "0-2", "order": Order.SIGN_THEN_VOTE},
        {"quantization": Quantization.UINT8},
        {"quantization": Quantization.FLOAT16, "precision": "fp32"},
    ],
    ids=["thresholds", "vote", "uint8", "float16"],
)
def test_every_kind_of_code(
    options: dict[str, Any],
    build_bundle: Callable[..., Path],
    add_host_parts: Callable[[Path], Path],
    open_engine: OpenEngine,
) -> None:
    """Also that of float16 codes, which has no heads on a CPU."""
    bundle = add_host_parts(build_bundle("bert", **options))
    with Engine.load(bundle, "openvino") as python_engine:
        expected = expected_codes(python_engine, bundle, TEXTS)
    engine = open_engine(bundle)
    assert_same_codes(engine.encode(TEXTS), expected)
    head = random_head(expected.spec, "added", classes=5, seed=3)
    write_head(head, bundle / "added.safetensors")
    engine.add_head(bundle / "added.safetensors")
    singles = [i for i, text in enumerate(TEXTS) if isinstance(text, str)]
    logits = engine.predict(SINGLES, ["added"])["added"].logits
    again = engine.predict_features(expected.codes, expected.offsets, ["added"])["added"].logits
    assert logits.std(axis=0).min() > 1e-3
    np.testing.assert_array_equal(again[singles], logits)


@pytest.fixture(scope="module")
def headed_bundle(host_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads of all forms and kinds, and many more."""
    folder = Path(shutil.copytree(host_bundle, tmp_path_factory.mktemp("headed") / "bundle"))
    spec = read_manifest(folder).spec
    heads = [
        random_span_head(spec),
        random_two_texts_head(spec, "alike", vector_size=33, inner=5),
        random_two_texts_head(spec, "near", vector_size=8, inner=9, seed=2),
    ]
    for head in heads:
        write_head(head, folder / "heads" / f"{head.task}.safetensors")
    return folder


@pytest.fixture
def python_encoder(
    software_cuda: SoftwareCuda, host_bundle: Path, device_code_file: Path
) -> Iterator[DeviceEncoder]:
    """Python's own encoder on the same device, with the same formula."""
    pytest.importorskip("pycuda", reason="pycuda is not installed, type: make device")
    from bitheads.engine.device.code import DeviceCode
    from bitheads.engine.device.driver import Device

    manifest = read_manifest(host_bundle)
    spec, longest = manifest.spec, manifest.encoder.max_length
    device = Device()
    with device.current("loading the encoder"):
        stream = device.cuda.Stream()
        code = DeviceCode(device, device_code_file)
        session = FormulaSession(software_cuda, stream, spec.layers, spec.dim, longest)
        calibration = read_calibration(host_bundle, spec)
        encoder = DeviceEncoder(device, code, session, spec, calibration, stream)
    del stream
    yield encoder
    encoder.close()
    del encoder, device, code, session
    gc.collect()


def test_logits_are_those_of_pythons_encoder(
    open_engine: OpenEngine,
    python_encoder: DeviceEncoder,
    headed_bundle: Path,
    expected: PackedFeatures,
) -> None:
    """To the bit, of texts, of kept codes, and of pairs of texts."""
    engine = open_engine(headed_bundle)
    codes = np.empty_like(expected.codes)
    list(python_encoder.encode(_batches(headed_bundle, expected, codes)))
    np.testing.assert_array_equal(codes, expected.codes)
    paths = {p.stem: p for p in (headed_bundle / "heads").glob("*.safetensors")}
    heads = {task: read_head(paths[task]) for task in ("attends", "averages", "last")}
    singles = [i for i, text in enumerate(TEXTS) if isinstance(text, str)]
    wanted = python_encoder.predict(expected, list(heads.values()))
    got = engine.predict(SINGLES, list(heads))
    kept = engine.predict_features(expected.codes, expected.offsets, list(heads))
    for task in heads:
        assert wanted[task].logits.std(axis=0).min() > 1e-3
        np.testing.assert_array_equal(got[task].logits, wanted[task].logits[singles])
        np.testing.assert_array_equal(kept[task].logits, wanted[task].logits)


def _batches(
    folder: Path, features: PackedFeatures, codes: NDArray[np.uint8]
) -> Iterator[PlacedBatch]:
    """All texts, one batch each, as Python's encoder takes them and packs them to `codes`."""
    with Engine.load(folder, "openvino") as engine:
        tokens = engine._tokenizer(TEXTS)
    for i, text in enumerate(tokens):
        ids = np.array([text.ids], np.int64)
        types = (np.arange(ids.size)[None] >= text.num_first).astype(np.int64)
        batch = TokenBatch(ids, np.ones_like(ids), types, np.array([ids.size]))
        yield PlacedBatch(batch, np.array([i]), features.offsets[i : i + 1], codes)


def test_answers_are_those_of_the_cpu(
    open_engine: OpenEngine, headed_bundle: Path, library: HostLibrary
) -> None:
    """Of every form and kind: from texts, from kept codes, words, and pairs of texts."""
    engine = open_engine(headed_bundle)
    features = engine.encode(TEXTS)
    with HostEngine(library, headed_bundle) as on_cpu:
        exact = on_cpu.predict_features(features.codes, features.offsets)
        assert set(on_cpu.tasks) == set(engine.tasks)
    got = engine.predict_features(features.codes, features.offsets)
    assert set(got) == set(exact)
    for task, answer in exact.items():
        np.testing.assert_allclose(got[task].probabilities, answer.probabilities, atol=3e-3)
    of_texts = engine.predict(SINGLES)
    of_words = engine.predict_encoded(SINGLES)
    assert {"attends", "averages", "last", "names"} == set(of_texts) == set(of_words)
    for task, answer in of_texts.items():
        np.testing.assert_array_equal(of_words[task].logits, answer.logits)
    pairs = [(i, j) for i in range(3) for j in range(5, 9)]
    both: list[Text] = [(SINGLES[i], SINGLES[j]) for i, j in pairs]
    of_pairs = engine.predict(both)
    assert {"alike", "near", "pairs", "first"} == set(of_pairs)
    apart = engine.predict_pairs(SINGLES, pairs)
    for task in ("alike", "near"):
        assert of_pairs[task].logits.std(axis=0).min() > 1e-3
        np.testing.assert_array_equal(apart[task].logits, of_pairs[task].logits)


@pytest.mark.parametrize("seed", range(6))
def test_any_order_the_streams_allow(
    open_engine: OpenEngine, expected: PackedFeatures, software_cuda: SoftwareCuda, seed: int
) -> None:
    """The device runs ahead of the host, or far behind it: nothing is overwritten too early."""
    engine = open_engine(max_batch_tokens=48)
    logits = engine.predict(SINGLES, ["attends"])["attends"].logits
    software_cuda.set_random(seed)
    for _ in range(2):  # graphs are recorded, then launched
        assert_same_codes(engine.encode(TEXTS), expected)
        again = engine.predict(SINGLES, ["attends"])["attends"].logits
        np.testing.assert_array_equal(again, logits)


def test_only_codes_and_answers_come_back(
    open_engine: OpenEngine, software_cuda: SoftwareCuda
) -> None:
    engine = open_engine()
    before = software_cuda.counter("bytes_to_host")
    features = engine.encode(TEXTS)
    after_codes = software_cuda.counter("bytes_to_host")
    assert after_codes - before == features.codes.nbytes
    answers = engine.predict(SINGLES)
    after_answers = software_cuda.counter("bytes_to_host")
    assert after_answers - after_codes == sum(p.logits.nbytes for p in answers.values())
    assert software_cuda.counter("pageable_async_copies") == 0


def test_nothing_is_allocated_after_loading(
    open_engine: OpenEngine, software_cuda: SoftwareCuda
) -> None:
    engine = open_engine()
    engine.predict(SINGLES)
    allocations = software_cuda.counter("calls:cuMemAlloc")
    for _ in range(3):
        engine.predict(SINGLES)
        engine.encode(TEXTS)
    assert software_cuda.counter("calls:cuMemAlloc") == allocations


def test_small_batches_become_graphs(open_engine: OpenEngine, software_cuda: SoftwareCuda) -> None:
    """A shape's second call records it; from then on it is one launch."""
    engine = open_engine()
    first = engine.encode(["the tide was out"])
    assert software_cuda.counter("graph_launches") == 0
    for _ in range(3):
        np.testing.assert_array_equal(engine.encode(["the tide was out"]).codes, first.codes)
    assert software_cuda.counter("graph_launches") == 3
    other = engine.encode(["a boat came"])  # about as long: the same graph
    assert software_cuda.counter("graph_launches") == 4
    np.testing.assert_array_equal(engine.encode(["a boat came"]).codes, other.codes)


def test_a_session_that_cannot_be_recorded(
    open_engine: OpenEngine,
    formula: FormulaPlugin,
    expected: PackedFeatures,
    software_cuda: SoftwareCuda,
) -> None:
    formula.set(capturable=0)
    engine = open_engine()
    for _ in range(3):
        assert_same_codes(engine.encode(TEXTS), expected)
    assert software_cuda.counter("graph_launches") == 0


def test_a_recording_that_is_refused(
    open_engine: OpenEngine, expected: PackedFeatures, software_cuda: SoftwareCuda
) -> None:
    """The engine goes on without graphs."""
    engine = open_engine()
    software_cuda.fail("cuStreamBeginCapture", times=9, status=900)
    for _ in range(4):
        assert_same_codes(engine.encode(TEXTS), expected)
    assert software_cuda.counter("graph_launches") == 0


def test_more_shapes_than_graphs_are_kept(
    open_engine: OpenEngine, software_cuda: SoftwareCuda, host_bundle: Path, tmp_path: Path
) -> None:
    """Each is recorded in its second call; MAX_GRAPHS of them stay."""
    bundle = Path(shutil.copytree(host_bundle, tmp_path / "long"))
    with_longer_texts(bundle, 512)
    engine = open_engine(bundle)
    lengths = range(SEQ_STEP, 513, SEQ_STEP)
    shapes = [(n, seq) for seq in lengths for n in range(1, 6) if n * seq <= GRAPH_TOKENS]
    assert all(round_rows(rows) == rows for rows, _ in shapes)
    for number, (rows, seq) in enumerate(shapes):
        ids = [2, *(5 + i % 50 for i in range(seq - 2)), 3]
        first, *others = (engine.encode_tokens([ids] * rows).codes for _ in range(3))
        one = first[: len(ids)]
        assert np.array_equal(first, np.tile(one, (rows, 1)))
        for codes in others:
            assert np.array_equal(codes, first)
        assert software_cuda.live()["graph_execs"] == min(number + 1, MAX_GRAPHS)
    assert len(shapes) > MAX_GRAPHS
    assert software_cuda.counter("graph_launches") == 2 * len(shapes)


def with_longer_texts(bundle: Path, max_length: int) -> None:
    """To the formula a text may be as long as one likes."""
    path = bundle / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    content["encoder"]["max_length"] = max_length
    path.write_text(json.dumps({**content, "sha256": _hash(content)}), encoding="utf-8")


def test_threads_take_turns(open_engine: OpenEngine, expected: PackedFeatures) -> None:
    engine = open_engine(max_batch_tokens=100)
    with ThreadPoolExecutor(3) as threads:
        for features in threads.map(engine.encode, [TEXTS] * 6):
            assert_same_codes(features, expected)


def test_callers_share_batches(open_engine: OpenEngine, expected: PackedFeatures) -> None:
    alone = open_engine()
    engine = open_engine(share_batches=True)
    logits = alone.predict(SINGLES, ["attends"])["attends"].logits
    with ThreadPoolExecutor(4) as threads:
        for i, features in enumerate(threads.map(lambda text: engine.encode([text]), TEXTS)):
            start, stop = expected.offsets[i : i + 2]
            np.testing.assert_array_equal(features.codes, expected.codes[start:stop])
        for i, answers in enumerate(threads.map(lambda text: engine.predict([text]), SINGLES)):
            np.testing.assert_array_equal(answers["attends"].logits[0], logits[i])


def test_many_sets_of_heads_from_two_threads(open_engine: OpenEngine) -> None:
    """A set that is no longer kept is freed only when nothing uses it."""
    engine = open_engine(max_batch_tokens=64)
    exact = engine.predict(SINGLES)
    sets = [[a, b] for a in exact for b in exact if a != b] + [[a] for a in exact]
    assert len(sets) > 4

    def predict(tasks: list[str]) -> None:
        for task, answer in engine.predict(SINGLES, tasks).items():
            np.testing.assert_array_equal(answer.logits, exact[task].logits)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(predict, sets * 2))


def test_heads_come_and_go(
    open_engine: OpenEngine, expected: PackedFeatures, tmp_path: Path
) -> None:
    engine = open_engine()
    path = tmp_path / "late.safetensors"
    found = []
    for seed in range(2):
        write_head(random_head(expected.spec, "late", classes=7, seed=seed), path, force=True)
        engine.add_head(path, replace=True)
        found.append(engine.predict(SINGLES)["late"].logits)
    assert found[0].shape == found[1].shape == (len(SINGLES), 7)
    assert not np.array_equal(*found)
    engine.remove_head("late")
    assert "late" not in engine.predict(SINGLES)


def test_no_texts(open_engine: OpenEngine) -> None:
    engine = open_engine()
    assert engine.encode([]).offsets.tolist() == [0]
    assert engine.predict([])["attends"].logits.shape == (0, 2)


def test_two_engines_share_the_device(open_engine: OpenEngine, expected: PackedFeatures) -> None:
    first, second = open_engine(), open_engine()
    assert_same_codes(first.encode(TEXTS), expected)
    first.close()
    assert_same_codes(second.encode(TEXTS), expected)
