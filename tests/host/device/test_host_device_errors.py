"""What may be missing where a GPU is asked for: a status and the fix, and `auto` goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from formula_sessions import FormulaPlugin
from host_build import ROOT, run
from software_driver import SoftwareCuda
from test_host_errors import refused

from benchmarks.contenders.host_library import HostEngine
from bitheads.engine.device.code import DEVICE_CODE

OpenEngine = Callable[..., HostEngine]

ASK = """
import sys
from pathlib import Path
from benchmarks.contenders.host_library import HostEngine, HostError, HostLibrary
library, bundle, plugins, code, backend = sys.argv[1:]
try:
    engine = HostEngine(HostLibrary(Path(library)), Path(bundle), backend=backend,
                        plugins=Path(plugins), device_code=Path(code))
    print(engine.backend.split()[0], len(engine.encode(["tide"]).offsets))
    print(engine.why_not_gpu)
except HostError as error:
    print(error.status, error)
"""
"""A program of its own, which has not opened a driver yet."""


@pytest.fixture
def ask(
    host_build: Path,
    host_bundle: Path,
    formula_library: Path,
    device_code_file: Path,
    tmp_path: Path,
) -> Callable[[str], str]:
    """(backend) -> what a program says whose driver is tmp_path / "libcuda.so.1"."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in ("formula", "tensorrt"):
        shutil.copy(formula_library, plugins / f"libbitheads_{name}.so")
    arguments = (host_build / "libbitheads.so", host_bundle, plugins, device_code_file)

    def run_with(backend: str) -> str:
        where = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
        return run(sys.executable, "-c", ASK, *arguments, backend, environment=where)

    return run_with


def test_no_driver(ask: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"")
    shown = ask("formula")
    assert shown.startswith("backend a GPU was asked for, but NVIDIA's driver cannot be opened (")
    assert "ask for the backend openvino" in shown
    first, *why = ask("auto").splitlines()
    assert first == "openvino 2"
    assert why[0].startswith("formula: a GPU was asked for, but NVIDIA's driver cannot be opened")
    assert len(why) == 1, "the other backends would say the same"


def test_a_driver_that_is_too_old(ask: Callable[[str], str], tmp_path: Path) -> None:
    source = tmp_path / "old.c"
    source.write_text("int cuInit(unsigned flags) { return (int)flags; }\n")
    subprocess.run(["cc", "-shared", source, "-o", tmp_path / "libcuda.so.1"], check=True)
    assert "has no cuGetErrorName: it is too old. Update it" in ask("formula")


def test_no_gpu(open_engine: OpenEngine, software_cuda: SoftwareCuda) -> None:
    software_cuda.fail("cuInit", status=100)
    with refused("backend", "no GPU can be used (CUDA_ERROR_NO_DEVICE", "nvidia-smi"):
        open_engine()
    for index in (1, -1):
        with refused("backend", f"GPU {index}: got 1 GPU.", "pass another device"):
            open_engine(device=index)


def test_no_such_plugin(open_engine: OpenEngine, formula: FormulaPlugin, tmp_path: Path) -> None:
    with refused("backend", "there is no plugin libbitheads_onnxruntime.so in", "openvino"):
        open_engine(backend="onnxruntime-cuda")
    with refused("backend", "there is no plugin libbitheads_formula.so in", "say in `plugins`"):
        open_engine(plugins=tmp_path)
    with refused("invalid_input", "expected one that plugins in", "have: formula, formula-other."):
        open_engine(backend="formula-third")
    for name in ("../formula", "Formula", ""):
        with refused("invalid_input", f"backend: got '{name}', expected auto, openvino, or that"):
            open_engine(backend=name)
    assert open_engine(backend="formula-other").backend == "formula-other fp16"
    assert open_engine(backend="formula-soft").backend == "formula-soft fp16"


def test_plugins_that_are_none(
    open_engine: OpenEngine, formula: FormulaPlugin, tmp_path: Path, host_build: Path
) -> None:
    path = tmp_path / "libbitheads_formula.so"
    path.write_bytes(b"no library")
    with refused("backend", "cannot be loaded", "LD_LIBRARY_PATH"):
        open_engine(plugins=tmp_path)
    shutil.copy(host_build / "libbitheads.so", path)
    with refused("backend", "has no bitheads_device_sessions_v1", "same version of the sources"):
        open_engine(plugins=tmp_path)
    formula.set(version=2)
    with refused("backend", "got version 2 of the table of device sessions, expected 1"):
        open_engine()
    formula.set(version=1, null=1)
    with refused("backend", "says that it cannot be used here"):
        open_engine()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("fail_open", ("formula cannot load", "encoder.onnx: no such kernel", "another backend")),
        ("misfit_open", ("of another library", "Build the plan again on this machine")),
    ],
)
def test_a_plugin_that_refuses_the_encoder(
    open_engine: OpenEngine, formula: FormulaPlugin, setting: str, words: tuple[str, ...]
) -> None:
    formula.set(**{setting: 1})
    with refused("backend", *words):
        open_engine()


@pytest.mark.parametrize("damage", ["missing", "no description", "changed", "version", "no json"])
def test_device_code_that_does_not_fit(
    open_engine: OpenEngine, device_code_file: Path, tmp_path: Path, damage: str
) -> None:
    code = tmp_path / "bitheads.fatbin"
    about = code.with_suffix(".json")
    shutil.copy(device_code_file, code)
    shutil.copy(device_code_file.with_suffix(".json"), about)
    assert open_engine(device_code=code).backend == "formula fp16"
    if damage == "missing":
        code.unlink()
    elif damage == "no description":
        about.unlink()
    elif damage == "changed":
        code.write_bytes(code.read_bytes() + b"\0")
    elif damage == "version":
        about.write_text(json.dumps({**json.loads(about.read_text()), "abi_version": 0}))
    else:
        about.write_text("[" * 100)
    words = {
        "missing": "no such file",
        "no description": "no file",
        "changed": "was changed: got sha256",
        "version": "got ABI version 0, expected",
        "no json": f'"{about}" cannot be read',
    }
    with refused("backend", f"device code {code}: {words[damage]}"):
        open_engine(device_code=code)


def test_device_code_is_looked_for_beside_the_library(
    open_engine: OpenEngine, host_build: Path
) -> None:
    assert DEVICE_CODE.name == "bitheads.fatbin"
    with refused("backend", f"device code {host_build / 'bitheads.fatbin'}: no such file"):
        open_engine(device_code=None)


def test_two_plugins_of_one_backend(
    open_engine: OpenEngine, formula_library: Path, tmp_path: Path
) -> None:
    """The first that works; what is wrong with each, if none does."""
    paths = [tmp_path / f"libbitheads_formula{end}.so" for end in ("", "_other")]
    for path in paths:
        shutil.copy(formula_library, path)
    plugins = [FormulaPlugin(path) for path in paths]
    plugins[0].set(fail_open=1)
    assert open_engine(plugins=tmp_path).backend == "formula fp16"
    plugins[0].set(fail_open=1)
    plugins[1].set(misfit_open=1)
    with refused("backend", "no such kernel", "the plan is of another library"):
        open_engine(plugins=tmp_path)


def test_precisions(open_engine: OpenEngine) -> None:
    assert open_engine(precision="fp16").backend == "formula fp16"
    for precision in ("fp32", "int8"):
        with refused(
            "backend", f"got '{precision}', but on a GPU", "fp16", f"--precision {precision}"
        ):
            open_engine(precision=precision)


def test_auto(open_engine: OpenEngine, formula_library: Path, tmp_path: Path) -> None:
    """The first plugin that works, by the names of the files; or the CPU, and why."""
    engine = open_engine(backend="auto", plugins=tmp_path)
    assert engine.backend.startswith("openvino ")
    assert engine.why_not_gpu == f"no plugin for a GPU in {tmp_path}"
    first, second = (tmp_path / f"libbitheads_{n}.so" for n in ("tensorrt_rtx", "onnxruntime"))
    for path in (first, second):
        shutil.copy(formula_library, path)
    engine = open_engine(backend="auto", plugins=tmp_path)
    assert (engine.backend, engine.why_not_gpu) == ("formula fp16", "")
    plugin = FormulaPlugin(first)
    plugin.set(fail_open=1)
    assert open_engine(backend="auto", plugins=tmp_path).backend == "formula-other fp16"
    plugin.set(fail_open=2)
    assert open_engine(backend="auto", plugins=tmp_path).backend == "formula fp16"
    FormulaPlugin(second).set(fail_open=2)
    plugin.set(fail_open=2)
    engine = open_engine(backend="auto", plugins=tmp_path)
    assert engine.backend.startswith("openvino ")
    assert engine.why_not_gpu.count("no such kernel") == 4
    assert len(engine.encode(["tide"]).offsets) == 2
    assert (
        open_engine(backend="auto", plugins=tmp_path, precision="fp32").backend == "openvino fp32"
    )
