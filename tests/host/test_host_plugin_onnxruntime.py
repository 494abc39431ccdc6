"""The plugin of ONNX Runtime, by its table: on the CPU provider, and behind a library that says it
is a GPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from plugin_build import Driver

from bitheads.engine.bundle import GRAPH, read_manifest

SHAPES = [(1, 1), (3, 7), (8, 32), (2, 64)]
LIBRARY = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
NAMED = {"BITHEADS_ONNXRUNTIME_LIBRARY": LIBRARY}


@pytest.fixture(scope="module")
def driver(plugins: Path) -> Driver:
    return Driver(plugins, "onnxruntime")


@pytest.fixture(params=["fp16", "fp32"])
def bundle(request: pytest.FixtureRequest, build_bundle: Callable[..., Path]) -> Path:
    return build_bundle("bert", precision=request.param)


class Graph:
    """A bundle's graph, what it computes in Python, and how a plugin is asked for it."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        manifest = read_manifest(bundle)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.path = bundle / GRAPH
        self._session = onnxruntime.InferenceSession(
            self.path, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [port.name for port in self._session.get_inputs()]
        self.outputs = manifest.output_names
        self.dim = manifest.spec.dim
        self.max_seq = manifest.encoder.max_length
        self._folder = folder

    def open(self, backend: str = "onnxruntime-cpu", **changed: object) -> str:
        given = {
            "backend": backend,
            "graph": self.path,
            "outputs": ",".join(self.outputs),
            "dim": self.dim,
            "max_seq": self.max_seq,
            **changed,
        }
        return "open " + " ".join(f"{key}={value}" for key, value in given.items())

    def write_inputs(self, rows: int, seq: int, seed: int) -> Path:
        """Random ids, of rows with padding: int64 [inputs, rows, seq]."""
        random = np.random.default_rng([seed, rows, seq])
        mask = np.arange(seq) < random.integers(1, seq + 1, (rows, 1))
        values = {
            "input_ids": np.where(mask, random.integers(1, 90, (rows, seq)), 0),
            "attention_mask": mask,
            "token_type_ids": np.zeros((rows, seq)),
        }
        path = self._folder / f"{rows}x{seq}.{seed}.ids"
        path.write_bytes(
            np.stack([values[name] for name in self.inputs]).astype(np.int64).tobytes()
        )
        return path

    def hidden_states(self, inputs: Path, rows: int, seq: int) -> list[NDArray[np.floating]]:
        values = np.fromfile(inputs, np.int64).reshape(len(self.inputs), rows, seq)
        hidden: list[NDArray[np.floating]] = self._session.run(
            self.outputs, dict(zip(self.inputs, values, strict=True))
        )
        return hidden

    def assert_same(self, written: Path, inputs: Path, rows: int, seq: int) -> None:
        expected = self.hidden_states(inputs, rows, seq)
        assert np.isfinite(expected).all()
        assert written.read_bytes() == b"".join(hidden.tobytes() for hidden in expected)


@pytest.fixture
def graph(tiny_bundle: Path, tmp_path: Path) -> Graph:
    return Graph(tiny_bundle, tmp_path)


def test_what_the_plugin_has(driver: Driver) -> None:
    answers = driver.obey(["table", "library"], NAMED)
    assert answers[0] == (
        "version 1 backend onnxruntime-tensorrt backend onnxruntime-cuda "
        "software onnxruntime-cpu flavour none"
    )
    assert answers[1] == onnxruntime.__version__


def test_hidden_states_are_those_of_python(driver: Driver, bundle: Path, tmp_path: Path) -> None:
    """All calls wait in the queue before the first one runs."""
    graph = Graph(bundle, tmp_path)
    calls = [(*shape, seed) for seed in range(2) for shape in SHAPES]
    files = [graph.write_inputs(*call) for call in calls]
    commands = [graph.open(), "limits", "max_rows 64", f"max_rows {graph.max_seq + 1}", "bind 8 64"]
    for (rows, seq, _), file in zip(calls, files, strict=True):
        commands.append(f"call {rows} {seq} {file} {file.with_suffix('.hidden')}")
    answers = driver.obey([*commands, "run", "close"], NAMED)
    precision = read_manifest(bundle).encoder.precision
    assert answers[1] == (
        f"{precision} capturable 1 tokens {1 << 20} seq {graph.max_seq} "
        f"inputs {' '.join(graph.inputs)}"
    )
    assert answers[2:4] == [str((1 << 20) // 64), "0"]
    assert {answers[0], *answers[4:-1]} == {"ok"}
    assert answers[-1] == "left 0"
    for (rows, seq, _), file in zip(calls, files, strict=True):
        graph.assert_same(file.with_suffix(".hidden"), file, rows, seq)


def test_a_recorded_call_runs_again(driver: Driver, graph: Graph) -> None:
    """On what is at the addresses then; other shapes and a call of its own in between."""
    first, second = graph.write_inputs(3, 7, 1), graph.write_inputs(3, 7, 2)
    other = graph.write_inputs(2, 9, 3)
    answers = driver.obey(
        [
            graph.open(),
            "bind 4 16",
            "record 3 7",
            "record 2 9",
            f"replay 3 7 {first} {first}.out",
            f"replay 2 9 {other} {other}.out",
            "call 3 7",
            f"replay 3 7 {second} {second}.out",
            "run",
            "forget 2 9",
            "call 3 7",  # which lets go of calls that have run and are not kept
            f"replay 3 7 {first} {first}.again",
            "run",
            "bind 8 8",
            f"call 3 7 {second} {second}.bound",
            "run",
            "close",
        ],
        NAMED,
    )
    assert {*answers[:-1]} == {"ok"}
    for inputs, suffix in ((first, "out"), (first, "again"), (second, "out"), (second, "bound")):
        graph.assert_same(Path(f"{inputs}.{suffix}"), inputs, 3, 7)
    graph.assert_same(Path(f"{other}.out"), other, 2, 9)


def test_calls_run_while_others_are_made(thread_checked_plugins: Path, graph: Graph) -> None:
    """In a thread of the driver, as on a GPU; the thread sanitizer sees what both touch."""
    inputs, whole = graph.write_inputs(3, 7, 1), graph.write_inputs(4, 16, 2)
    calls = ["keep 3 7", "begun", "keep 3 7", "call 2 9", "call 3 7", "keep 4 16", "run"] * 3
    last = [f"call 3 7 {inputs} {inputs}.out", "run", "close"]
    answers = Driver(thread_checked_plugins, "onnxruntime").obey(
        ["work", graph.open(), "bind 4 16", f"call 4 16 {whole} /dev/null", "run", *calls, *last],
        NAMED,
    )
    assert {*answers[:-1]} == {"ok"}
    graph.assert_same(Path(f"{inputs}.out"), inputs, 3, 7)


def test_calls_that_are_refused(driver: Driver, graph: Graph) -> None:
    limit = f"expected 1 to {graph.max_seq} tokens per row, and {1 << 20} in all"
    answers = driver.obey(
        [
            graph.open(),
            "call 1 1",
            "bind 4 16",
            f"call 1 {graph.max_seq + 1}",
            "call 0 4",
            "call 4 0",
            f"call {(1 << 20) // 4 + 1} 4",
            "call 4 16",
            "close",
        ],
        NAMED,
    )
    assert answers[1] == "failed 1 onnxruntime-cpu: no addresses are set. Call bind first."
    for answer in answers[3:7]:
        assert answer.startswith("failed 1 onnxruntime-cpu: got a call of ")
        assert limit in answer
    assert answers[7] == "ok"


def test_a_call_that_fails_in_its_turn_is_told_by_the_next(driver: Driver, graph: Graph) -> None:
    wrong = graph.open(dim=graph.dim + 1)
    ids = graph.write_inputs(4, 16, 1)
    calls = [f"call 4 16 {ids} /dev/null", "run", "call 1 4", "close"]
    for mode in ([], ["eager"]):
        answers = driver.obey([*mode, wrong, "bind 4 16", *calls], NAMED)
        assert answers[-4] == "ok"
        assert answers[-2].startswith("failed 1 onnxruntime-cpu failed: ")


def test_a_stream_that_is_lost(driver: Driver, graph: Graph) -> None:
    answers = driver.obey([graph.open(), "bind 1 4", "lose", "call 1 4", "close"], NAMED)
    assert answers[3] == (
        "failed 1 onnxruntime-cpu: the driver refused a call on the stream: error 700."
    )
    assert answers[4] == "left 0"


def test_graphs_that_are_refused(driver: Driver, graph: Graph, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(graph.path.read_bytes()[:5000])
    answers = driver.obey(
        [
            graph.open(graph=tmp_path / "missing.onnx"),
            graph.open(graph=cut),
            graph.open(outputs="hidden_0,hidden_77"),
            graph.open(outputs=",".join(graph.outputs)),
        ],
        NAMED,
    )
    for answer, path in zip(answers[:2], (tmp_path / "missing.onnx", cut), strict=True):
        assert answer.startswith(f"failed 1 CPUExecutionProvider cannot load {path}. ")
    assert answers[2].startswith(f"failed 1 graph {graph.path}: got outputs ")
    assert "expected hidden_0, hidden_77, all of them float16" in answers[2]
    assert answers[3] == "ok"


@pytest.mark.parametrize("kind", ["float ids", "three axes", "int64 states"])
def test_graphs_of_other_tensors(driver: Driver, graph: Graph, tmp_path: Path, kind: str) -> None:
    from onnx import TensorProto, helper, save

    ids = TensorProto.FLOAT if kind == "float ids" else TensorProto.INT64
    axes = ["rows", "seq", 4][: 3 if kind == "three axes" else 2]
    states = TensorProto.INT64 if kind == "int64 states" else TensorProto.FLOAT
    path = tmp_path / "other.onnx"
    made = helper.make_graph(
        [helper.make_node("Cast", ["ids"], ["hidden_1"], to=states)],
        "other",
        [helper.make_tensor_value_info("ids", ids, axes)],
        [helper.make_tensor_value_info("hidden_1", states, axes)],
    )
    opset = helper.make_opsetid("", 17)
    save(helper.make_model(made, opset_imports=[opset], ir_version=8), path)
    (answer,) = driver.obey([graph.open(graph=path, outputs="hidden_1")], NAMED)
    assert answer.startswith(f"failed 1 graph {path}: got ")
    assert answer.endswith("Export the bundle again.")
    assert ("expected int64 [rows, seq]" in answer) == (kind != "int64 states")


def test_backends_that_are_not_there(driver: Driver, graph: Graph) -> None:
    answers = driver.obey([graph.open("cuda"), graph.open("onnxruntime-cuda")], NAMED)
    assert answers[0] == (
        "failed 1 backend: got cuda, expected onnxruntime-tensorrt, onnxruntime-cuda or "
        "onnxruntime-cpu."
    )
    assert answers[1].startswith(
        "failed 1 backend onnxruntime-cuda needs ONNX Runtime's CUDAExecutionProvider, got "
    )
    assert "CPUExecutionProvider" in answers[1]


def test_libraries_that_are_not_there(
    driver: Driver, graph: Graph, plugins: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "libonnxruntime.so"
    named = "BITHEADS_ONNXRUNTIME_LIBRARY"
    answers = driver.obey(
        [
            "library",
            graph.open(),
            f"set {named} {plugins / 'libfake_tensorrt.so'}",
            graph.open(),
            f"set {named} {plugins / 'libfake_onnxruntime.so'}",
            "set FAKE_VERSION 1.20.9",
            graph.open(),
            "set FAKE_VERSION nonsense",
            graph.open(),
            f"set {named} {LIBRARY}",
            graph.open(),
            "close",
        ],
        {named: missing},
    )
    assert answers[0].startswith("ONNX Runtime 1.21 or later cannot be loaded: ")
    assert str(missing) in answers[0]
    assert answers[1] == f"failed 1 {answers[0]}"
    assert answers[3].startswith("failed 3 ")
    assert "it has no OrtGetApiBase" in answers[3]
    for answer, version in ((answers[6], "1.20.9"), (answers[8], "nonsense")):
        assert answer.startswith(
            f"failed 3 ONNX Runtime: got version {version}, expected 1.21 or later. "
        )
    assert answers[10] == "ok"  # what failed before is tried again


@pytest.mark.parametrize(
    ("backend", "provider"),
    [
        ("onnxruntime-cuda", "CUDAExecutionProvider"),
        ("onnxruntime-tensorrt", "TensorrtExecutionProvider"),
    ],
)
def test_providers_of_a_gpu(
    driver: Driver, graph: Graph, plugins: Path, tmp_path: Path, backend: str, provider: str
) -> None:
    """Their options, where tensors are bound, and what is said of failures."""
    log, inputs = tmp_path / "log", graph.write_inputs(3, 7, 1)
    answers = driver.obey(
        [
            graph.open(backend),
            "limits",
            "eager",
            "bind 4 16",
            f"call 3 7 {inputs} {inputs}.out",
            "set FAKE_FAULT memory",
            "call 3 7",
            "set FAKE_FAULT run",
            "call 3 7",
            "close",
            "set FAKE_FAULT provider",
            graph.open(backend),
        ],
        {
            "BITHEADS_ONNXRUNTIME_LIBRARY": plugins / "libfake_onnxruntime.so",
            "FAKE_REAL": LIBRARY,
            "FAKE_VERSION": "1.21.0",
            "FAKE_LOG": log,
        },
    )
    assert log.read_text(encoding="utf-8").splitlines() == [
        "option device_id 0",
        "option user_compute_stream set",
        f"provider {provider} appended",
        "memory Cuda 0",
        "option device_id 0",
        "option user_compute_stream set",
    ]
    assert answers[1].startswith("fp16 capturable 1 ")
    graph.assert_same(Path(f"{inputs}.out"), inputs, 3, 7)
    assert answers[6] == (
        f"failed 2 {backend} failed: the GPU has no memory left: "
        "BFCArena: Failed to allocate memory for 4096 bytes"
    )
    assert answers[8] == f"failed 1 {backend} failed: CUDA error 700"
    assert answers[9] == "left 0"
    assert answers[11].startswith(f"failed 1 {provider} could not be started. ")
    assert answers[11].endswith("libcudnn.so.9 is not there")
