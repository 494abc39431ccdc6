"""The plugins of TensorRT and TensorRT-RTX, compiled with NVIDIA's headers, over a library that
stands in for both: fake_nvinfer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from plugin_build import Driver

from bitheads.engine.device.profile import Profile, choose_profile, max_rows
from bitheads.engine.errors import PlanError

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
OUTPUTS = ["hidden_1", "hidden_2"]
DIM = 8
PROFILES = [Profile((1, 1), (4, 16), (16, 16)), Profile((1, 1), (4, 64), (8, 64))]
ACTIVATION_BYTES = 4096


@dataclass
class Case:
    """A plugin over its fake library, in a folder of the test's own."""

    name: str
    version: str
    plugins: Path
    folder: Path

    @property
    def flavour(self) -> str:
        return self.name.replace("_", "-")

    def obey(self, commands: Sequence[str]) -> list[str]:
        environment = {
            f"BITHEADS_{self.name.upper()}_LIBRARY": self.plugins / f"libfake_{self.name}.so",
            "FAKE_VERSION": self.version,
            "FAKE_LOG": self.folder / "log",
        }
        return Driver(self.plugins, self.name).obey(commands, environment)

    def log(self) -> list[str]:
        """What was asked of the library."""
        return (self.folder / "log").read_text(encoding="utf-8").splitlines()

    def write_plan(
        self, profiles: Sequence[Profile] = PROFILES, name: str = "plan", **changed: str
    ) -> Path:
        given = {
            "type": "float32",
            "dim": str(DIM),
            "inputs": " ".join(INPUTS),
            "outputs": " ".join(OUTPUTS),
            "profiles": " ".join(str(profile) for profile in profiles),
            **changed,
        }
        path = self.folder / name
        lines = ["fake plan", *(f"{key} {value}" for key, value in given.items())]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    def open(self, plan: Path | None = None, **changed: object) -> str:
        given = {
            "backend": "tensorrt",
            "graph": "encoder.onnx",
            "plan": plan or self.write_plan(),
            "inputs": ",".join(INPUTS),
            "outputs": ",".join(OUTPUTS),
            "profiles": ";".join(str(profile) for profile in PROFILES),
            "dim": DIM,
            "max_seq": 512,
            **changed,
        }
        return "open " + " ".join(f"{key}={value}" for key, value in given.items())

    def write_inputs(self, rows: int, seq: int, seed: int = 0) -> Path:
        """int64 [inputs, rows, seq], so small that float16 has the hidden states exactly."""
        values = np.random.default_rng([seed, rows, seq]).integers(0, 90, (3, rows, seq))
        path = self.folder / f"{rows}x{seq}.{seed}.ids"
        path.write_bytes(values.astype(np.int64).tobytes())
        return path


def hidden_states(inputs: Path, rows: int, seq: int, dtype: str) -> bytes:
    """What fake_nvinfer.cpp computes."""
    values = np.fromfile(inputs, np.int64).reshape(3, rows, seq)
    summed = np.einsum("i,irs->rs", [1, 2, 3], values)[..., None]
    layers = [(layer + 1) * summed + np.arange(DIM) for layer in range(len(OUTPUTS))]
    return np.stack(layers).astype(dtype).tobytes()


@pytest.fixture(params=[("tensorrt", "10.14.1.48"), ("tensorrt_rtx", "1.4.0.99")])
def case(request: pytest.FixtureRequest, plugins: Path, tmp_path: Path) -> Case:
    name, version = request.param
    return Case(name, version, plugins, tmp_path)


def test_what_the_plugin_has(case: Case) -> None:
    answers = case.obey(["table", "library"])
    assert answers == [
        f"version 1 backend tensorrt software none flavour {case.flavour}",
        case.version,
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_calls_of_both_profiles(case: Case, dtype: str) -> None:
    plan = case.write_plan(type=dtype)
    shapes = [(1, 1), (16, 16), (3, 40), (8, 64), (3, 5)]
    files = [case.write_inputs(*shape) for shape in shapes]
    commands = [case.open(plan), "limits", "bind 16 64"]
    for (rows, seq), file in zip(shapes, files, strict=True):
        commands.append(f"call {rows} {seq} {file} {file}.out")
    answers = case.obey([*commands, "run", "close"])
    precision, capturable = {"float32": "fp32", "float16": "fp16"}[dtype], case.name == "tensorrt"
    assert answers[1] == (
        f"{precision} capturable {capturable:d} tokens 512 seq 64 inputs {' '.join(INPUTS)}"
    )
    assert {answers[0], *answers[2:-1]} == {"ok"}
    assert answers[-1] == "left 0"
    for (rows, seq), file in zip(shapes, files, strict=True):
        assert Path(f"{file}.out").read_bytes() == hidden_states(file, rows, seq, dtype)


def test_a_context_per_profile_and_per_kept_shape(case: Case) -> None:
    """Each has its profile and all addresses before its first call, and is made once."""
    answers = case.obey(
        [
            case.open(),
            "bind 16 64",
            *(
                "call 1 1",
                "call 2 40",
                "call 16 16",
                "keep 2 5",
                "keep 2 6",
                "keep 2 5",
                "call 2 5",
            ),
            "run",
            "forget 2 5",
            "forget 9 9",
            "keep 2 5",
            "run",
            "bind 8 16",
            "call 1 1",
            "run",
            "close",
        ]
    )
    assert {*answers[:-1]} == {"ok"}
    addresses = [f"address {name}" for name in sorted(INPUTS + OUTPUTS)]

    def made(profile: int) -> list[str]:
        return ["context", f"profile {profile}", *addresses]

    assert case.log() == [
        *(*made(0), "enqueue 1x1", *made(1), "enqueue 2x40", "enqueue 16x16"),
        *(*made(0), "enqueue 2x5", *made(0), "enqueue 2x6", "enqueue 2x5", "enqueue 2x5"),
        *("context freed", *made(0), "enqueue 2x5"),
        *(*["context freed"] * 4, *made(0), "enqueue 1x1"),
        *("context freed", "engine freed", "runtime freed"),
    ]


def test_a_recorded_call_runs_again(case: Case) -> None:
    first, second = case.write_inputs(3, 7, 1), case.write_inputs(3, 7, 2)
    other = case.write_inputs(3, 9)
    answers = case.obey(
        [
            case.open(),
            "bind 8 16",
            "record 3 7",
            f"replay 3 7 {first} {first}.out",
            f"call 3 9 {other} {other}.out",
            f"replay 3 7 {second} {second}.out",
            "run",
            "close",
        ]
    )
    assert {*answers[:-1]} == {"ok"}
    for inputs, seq in ((first, 7), (second, 7), (other, 9)):
        assert Path(f"{inputs}.out").read_bytes() == hidden_states(inputs, 3, seq, "float32")


def test_profiles_are_chosen_as_in_python(case: Case) -> None:
    profiles = [
        Profile((1, 1), (1, 32), (1, 128)),
        Profile((1, 1), (8, 16), (8, 16)),
        Profile((2, 1), (2, 64), (2, 64)),
        Profile((4, 8), (4, 32), (4, 32)),
        Profile((1, 1), (16, 64), (32, 64)),
    ]
    text = ";".join(str(profile) for profile in profiles)
    plan = case.write_plan(profiles)
    shapes = [(rows, seq) for rows in (1, 2, 3, 4, 8, 9, 32, 33) for seq in (1, 8, 16, 17, 64, 65)]
    commands = [case.open(plan, profiles=text), "bind 33 128"]
    commands += [f"keep {rows} {seq}" for rows, seq in shapes]
    lengths = [0, 1, 16, 17, 64, 65, 128, 129]
    answers = case.obey([*commands, *(f"max_rows {seq}" for seq in lengths), "run", "close"])
    chosen = []
    for (rows, seq), answer in zip(shapes, answers[2:], strict=False):
        refusal = ""
        try:
            chosen.append(choose_profile(profiles, rows, seq))
        except PlanError as error:
            refusal = str(error)
        assert answer == (f"failed 1 {refusal}" if refusal else "ok")
    assert len(chosen) < len(shapes)
    assert {*chosen} == {*range(len(profiles))}
    asked = [line for line in case.log() if line.startswith("profile ")]
    assert asked == [f"profile {profile}" for profile in chosen]
    expected = []
    for seq in lengths:
        try:
            expected.append(max_rows(profiles, seq))
        except PlanError:
            expected.append(0)
    assert answers[2 + len(shapes) : -2] == [str(rows) for rows in expected]


def test_memory_that_runs_out(case: Case) -> None:
    answers = case.obey(
        [
            f"memory {ACTIVATION_BYTES - 1}",
            case.open(),
            f"memory {ACTIVATION_BYTES + 5 * 4 * 8 * 4 * DIM}",
            case.open(),
            "bind 4 8",
            "set FAKE_FAULT contexts",
            "call 1 4",
            "set FAKE_FAULT memory",
            "call 1 4",
            "set FAKE_FAULT enqueue",
            "call 1 4",
            "set FAKE_FAULT none",
            "call 1 4",
            "run",
            "close",
        ]
    )
    assert answers[1].startswith(
        f"failed 2 {case.flavour} needs {ACTIVATION_BYTES} bytes of the GPU's memory for "
    )
    assert answers[6].startswith(
        f"failed 2 {case.flavour} cannot make an execution context: the context cannot be made. "
    )
    assert answers[8] == (
        f"failed 2 {case.flavour} refused a batch of [1, 4]: Out of Memory in a tactic."
    )
    assert answers[10] == (
        f"failed 1 {case.flavour} refused a batch of [1, 4]: an illegal memory access was "
        "encountered."
    )
    assert answers[12:] == ["ok", "ok", "left 0"]


def test_plans_that_are_refused(case: Case) -> None:
    damaged = case.folder / "damaged"
    damaged.write_bytes(b"ftrt\0\0")
    plans = {
        "names": case.write_plan(name="names", outputs="hidden_1 hidden_3"),
        "profiles": case.write_plan(PROFILES[:1], name="profiles"),
        "ids": case.write_plan(name="ids", ids="int32"),
    }
    answers = case.obey([case.open(damaged), *map(case.open, plans.values())])
    assert answers[0] == (
        f"failed 3 plan {damaged}: {case.flavour} {case.version} cannot load it on this GPU: "
        "magic tag does not match. Build it again on this machine with `bitheads plan`."
    )
    names = "attention_mask, hidden_1, hidden_{}, input_ids, token_type_ids"
    assert answers[1] == (
        f"failed 3 plan {plans['names']}: got tensors {names.format(3)} and 2 profiles, expected "
        f"{names.format(2)} and 2. Build it again with `bitheads plan`."
    )
    assert f"{names.format(2)} and 1 profiles, expected {names.format(2)} and 2" in answers[2]
    assert f"plan {plans['ids']}: expected inputs input_ids, attention_mask" in answers[3]
    assert {answer[:9] for answer in answers} == {"failed 3 "}
    assert case.log().count("engine freed") == 3
    assert case.log().count("runtime freed") == 4


def test_what_cannot_be_opened(case: Case) -> None:
    without = "open backend=tensorrt graph=bundle/encoder.onnx outputs=hidden_1 dim=8 max_seq=64"
    answers = case.obey(
        [case.open(backend="tensorrt-12"), without, "set FAKE_FAULT runtime", case.open()]
    )
    assert answers[0] == "failed 1 backend: got tensorrt-12, expected tensorrt."
    assert answers[1].startswith(
        "failed 1 backend tensorrt needs a plan, and the bundle bundle/encoder.onnx has none for "
        f"{case.flavour}. "
    )
    assert "cannot start: the driver is too old. " in answers[3]
