"""The GPU's measurements, each on a processor: what is timed differs, the measuring does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeGpu, Memory
from numpy.typing import NDArray
from random_heads import random_head

from benchmarks.gpu import accuracy, head_kernels, kernels, seeded, speed
from benchmarks.gpu.contenders import CONTENDERS, BoundedEngine, open_engine
from benchmarks.gpu.context import Bench, Gpu, Repeats, labels
from benchmarks.gpu.host_session import HostSession
from benchmarks.gpu.kernels import Layers
from benchmarks.gpu.outcome import Skip
from benchmarks.gpu.texts import TextMaker
from benchmarks.gpu.torch_peer import TorchPeer
from benchmarks.inputs.shapes import Shape
from bitheads.engine import Engine, bundle
from bitheads.engine.cpu_encoder import CpuEncoder
from bitheads.engine.heads.head_file import write_head
from bitheads.engine.sessions import open_session
from bitheads.engine.texts.tokenize import TextTokenizer

FEW = Repeats(warm_up=1, latency=3, throughput=1, kernel=2, texts=20)


@pytest.fixture
def bench(own_bundle: Path, tiny_encoder: Any) -> Bench:
    """The tiny BERT with two heads of different classes."""
    bench = Bench(own_bundle, str(tiny_encoder("bert")), FEW)
    for i, classes in enumerate((2, 5)):
        head = random_head(bench.manifest.spec, task=f"task-{i}", classes=classes, seed=i)
        write_head(head, own_bundle / bundle.HEADS / f"task-{i}.safetensors")
    return bench


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_texts_have_the_tokens_asked_for(tiny_encoder: Any, family: str) -> None:
    tokenizer = TextTokenizer(tiny_encoder(family) / "tokenizer.json", 64)
    maker = TextMaker(tokenizer, 64)
    for wanted in (8, 21, 50, 64):
        text, size = maker.text(wanted)
        assert size == tokenizer([text])[0].ids.size
        assert abs(size - wanted) <= (0 if family == "bert" else 3)
    texts = maker.random_texts(50)
    assert len(set(texts)) > 40
    assert texts != maker.random_texts(50)


def test_the_same_seed_makes_the_same_texts(tiny_bundle: Path) -> None:
    one, other = (Bench(tiny_bundle, "").maker.random_texts(20) for _ in range(2))
    assert one == other


def test_speed_is_measured_at_every_length_and_budget(bench: Bench) -> None:
    compared = speed.compare(bench, {"cpu": open_engine("onnxruntime")})
    result = compared["cpu"]["result"]
    assert set(result["latency"]) == {"8", "50"}  # 200 is past the tiny encoder's 64
    assert result["latency"]["8"]["runs"] == FEW.latency
    for texts in ("shipped sentences", "random lengths"):
        by_budget = result["throughput"][texts]
        assert set(by_budget) == {str(budget) for budget in speed.BUDGETS}
        measured = by_budget["1024"]["result"]
        assert measured["texts"] == FEW.texts
        assert measured["tokens_per_s_without_tokenizing"] >= measured["tokens_per_s"] > 0


def test_what_is_not_installed_is_skipped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.contenders.find_spec", lambda name: None)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    compared = speed.compare(bench, CONTENDERS)
    assert {outcome["status"] for outcome in compared.values()} == {"skipped"}
    reasons = {name: outcome["reason"] for name, outcome in compared.items()}
    assert "TensorRT is not installed. Type: pip install" in reasons["tensorrt"]
    assert "pip uninstall onnxruntime" in reasons["onnxruntime-cuda"]
    assert "cannot use the GPU" in reasons["torch fp16"]
    assert "TensorRT is not installed" in reasons["tensorrt, packed on the CPU"]


def test_accuracy_is_beside_speed(bench: Bench) -> None:
    result = accuracy.compare(bench, {"cpu": open_engine("onnxruntime")})
    assert result["tasks"] == 2
    found = result["contenders"]["cpu"]["result"]
    assert found["same_label"] == found["same_label_of_worst_task"] == 1
    assert found["sign_agreement"] > 0.999  # of torch's in fp32
    assert found["same_bytes_again"]
    assert found["texts_alone"]["sign_agreement"] > 0.9999


def test_differing_labels_and_signs_are_counted(bench: Bench) -> None:
    got = {"a": np.array([0, 1, 1, 0]), "b": np.array([2, 2, 2, 2])}
    expected = {"a": np.array([0, 1, 1, 1]), "b": np.array([2, 2, 2, 2])}
    assert accuracy.compare_labels(got, expected) == {
        "same_label": 0.875,
        "worst_task": "a",
        "same_label_of_worst_task": 0.75,
    }
    with pytest.raises(Skip, match="no heads"):
        accuracy.compare_labels({}, {})
    with Engine.load(bench.bundle, backend="onnxruntime") as engine:
        features = engine.encode(["one text"])
    flipped = features.codes.copy()
    flipped[0, 0] ^= 0b101
    share = 2 / (len(flipped) * features.spec.dim)
    assert accuracy.sign_agreement(features, flipped) == pytest.approx(1 - share, abs=1e-6)


def test_the_torch_peer_answers_as_the_engine_does(bench: Bench) -> None:
    import torch

    texts = [*dict.fromkeys(bench.shipped_texts[:40])]  # a peer reads equal texts again
    peer = TorchPeer(bench, "cpu", torch.float32)
    answers = peer.predict(texts, max_batch_tokens=256)
    with Engine.load(bench.bundle, backend="onnxruntime") as engine:
        expected = engine.predict(texts)
    assert answers.stats.num_tokens == expected.stats.num_tokens
    for task, prediction in expected.items():
        assert answers[task].labels == prediction.labels
        # Signs differ where a feature is close to zero: a label here and there may, too.
        difference = np.abs(answers[task].logits - prediction.logits)
        assert np.median(difference) < 1e-3
    same = accuracy.compare_labels(labels(answers), labels(expected))
    assert same["same_label_of_worst_task"] >= 0.95
    peer.close()


def test_the_torch_peer_refuses_what_it_does_not_compute(bench: Bench) -> None:
    import torch

    from benchmarks.gpu.torch_peer import TorchHeads
    from bitheads import PositionPooling

    spec = bench.manifest.spec
    mixed = [random_head(spec), random_head(spec, pooling=PositionPooling.MEAN)]
    with pytest.raises(Skip, match="one shape only"):
        TorchHeads(mixed, "cpu", torch.float32)


class OnnxDeviceSession:
    """A DeviceSession whose device is the host (see fake_gpu)."""

    backend, precision, dtype, capturable = "onnxruntime", "fp16", "float16", False

    def __init__(self, bench: Bench, most_rows: int) -> None:
        import onnxruntime

        manifest = bench.manifest
        self._session = onnxruntime.InferenceSession(
            bench.bundle / bundle.GRAPH, providers=["CPUExecutionProvider"]
        )
        self.inputs = tuple(port.name for port in self._session.get_inputs())
        self._names, self._dim, self._most_rows = (
            manifest.output_names,
            manifest.spec.dim,
            most_rows,
        )
        self.shapes: list[tuple[int, int]] = []
        self.closed = False

    def max_tokens(self) -> int:
        return 512

    def max_seq(self) -> int:
        return 64

    def max_rows(self, seq: int) -> int:
        return self._most_rows

    def bind(self, inputs: Any, outputs: Any) -> None:
        self._inputs, self._outputs = inputs, outputs

    def enqueue(self, rows: int, seq: int, keep: bool = False) -> None:
        self.shapes.append((rows, seq))
        feeds = {
            name: _at(address, (rows, seq), np.int64).copy()
            for name, address in zip(self.inputs, self._inputs, strict=True)
        }
        for address, hidden in zip(
            self._outputs, self._session.run(self._names, feeds), strict=True
        ):
            _at(address, hidden.shape, hidden.dtype)[...] = hidden

    def close(self) -> None:
        self.closed = True


def _at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    import ctypes

    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


@pytest.mark.parametrize("most_rows", [100, 3])
def test_hidden_states_come_back_from_the_device(bench: Bench, most_rows: int) -> None:
    """Also in pieces, where a profile takes fewer rows than the engine's batch has."""
    fake, spec = FakeGpu(), bench.manifest.spec
    inner = OnnxDeviceSession(bench, most_rows)
    session = HostSession(fake, inner, fake, len(spec.layers), spec.dim)
    encoder = CpuEncoder(session, spec, None)
    encoder.max_batch_tokens = session.max_batch_tokens
    texts = bench.shipped_texts[:30]
    engine = BoundedEngine(bench.manifest, bench.tokenizer, encoder)
    got = engine.encode(texts, max_batch_tokens=1 << 20)  # more than there is room for
    plain = open_session(bench.bundle / bundle.GRAPH, bench.manifest.output_names, "onnxruntime")
    on_cpu = CpuEncoder(plain, spec, None)
    on_cpu.max_batch_tokens = session.max_batch_tokens
    expected = Engine(bench.manifest, bench.tokenizer, on_cpu).encode(texts)
    np.testing.assert_array_equal(got.codes, expected.codes)
    assert max(rows for rows, _ in inner.shapes) <= most_rows
    before = Memory.live
    session.close()
    assert inner.closed
    assert Memory.live == before - len(inner.inputs) - len(spec.layers)


def test_every_mode_of_pool_and_pack_is_timed_beside_a_copy() -> None:
    fake, before = FakeGpu(), Memory.live
    gpu = Gpu(fake, fake, fake)
    shapes = {"small": Layers(num_layers=3, dim=64, tokens=256)}
    outcomes = kernels.pool_and_pack(gpu, 2, shapes)
    assert set(outcomes) == {"small, float16", "small, bfloat16", "small, float32"}
    for outcome in outcomes.values():
        assert set(outcome["result"]["modes"]) == set(kernels.MODES)
        assert outcome["result"]["modes"]["sign"]["gb_per_s"] > 0
    assert outcomes["small, float32"]["result"]["bytes_read"] == 3 * 64 * 256 * 4
    assert Memory.live == before
    launched = set(fake.launches)
    assert len(launched) == 3 * len(kernels.MODES) - 3  # thresholds are no kernel of their own
    assert all(name.endswith("_vector") for name in launched)


def test_too_little_memory_skips_a_shape() -> None:
    fake = FakeGpu(free_bytes=1000)
    outcomes = kernels.pool_and_pack(Gpu(fake, fake, fake), 1, {"s": Layers(2, 64, 128)})
    assert {outcome["status"] for outcome in outcomes.values()} == {"skipped"}
    assert "0.0 GB are free" in outcomes["s, float16"]["reason"]


def test_bfloat16_is_the_upper_half() -> None:
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    assert kernels._as_bytes(values, "bfloat16").tolist() == [0x3F80, 0xC020, 0x4049]


class FakeHeads:
    """engine.device.heads.DeviceHeads as engine.device.encoder uses it."""

    closed = 0

    def __init__(self, device: Any, code: Any, spec: Any, stream: Any) -> None:
        self.tasks: list[int] = []

    def group(self, heads: Any) -> Any:
        self.num_classes = sum(len(head.labels) for head in heads)
        return self

    def enqueue(self, codes: int, offsets: int, rows: int, logits: NDArray[np.float32]) -> None:
        assert logits.size == rows * self.num_classes
        assert _at(offsets, (rows + 1,), np.int64)[-1] == rows * head_kernels.TEXT_TOKENS

    def close(self) -> None:
        FakeHeads.closed += 1


def test_heads_are_timed_by_number_of_tasks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitheads.engine.device.heads.DeviceHeads", FakeHeads)
    monkeypatch.setattr(head_kernels, "TASK_COUNTS", (1, 14))
    fake, before = FakeGpu(), Memory.live
    outcomes = head_kernels.time_heads(Gpu(fake, fake, fake), bench, texts=7)
    assert [outcome["status"] for outcome in outcomes.values()] == ["measured", "measured"]
    assert outcomes["14"]["result"]["tokens"] == 7 * head_kernels.TEXT_TOKENS
    assert (FakeHeads.closed, Memory.live) == (2, before)


def test_an_encoder_of_any_shape_with_seeded_weights(tmp_path: Path) -> None:
    shape = Shape(1, 64, 128, 4, pooled_layers=1, max_length=64)
    output, source = seeded.make_seeded_bundle(tmp_path, shape)
    bench = Bench(output, source, FEW)
    manifest = bench.manifest
    assert (manifest.spec.dim, manifest.encoder.max_length) == (64, 64)
    with Engine.load(output, backend="onnxruntime") as engine:
        assert len(engine.predict(["a text"])) == seeded.HEADS
    changed = output.stat().st_mtime_ns
    assert seeded.make_seeded_bundle(tmp_path, replace(shape, layers=9)) == (output, source)
    assert output.stat().st_mtime_ns == changed  # what is there is kept
