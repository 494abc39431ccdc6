"""A GPU in software for the C++ host: the driver of tests/device, and a plugin for tests.

No pycuda is needed, but for what is compared with Python's own encoder on a GPU.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import host_kernels
import pytest
import software_driver
from formula_sessions import FormulaPlugin
from formula_texts import TEXTS, expected_codes
from host_build import build
from software_driver import SoftwareCuda, SoftwareDriverError

from benchmarks.contenders.host_library import HostEngine, HostLibrary
from bitheads import Engine, PackedFeatures
from bitheads.engine.device.code import write_device_code

FAT_BINARY = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0)
"""The head of one: the software device has the kernels already."""

LEAKS = (
    "device_allocations",
    "host_allocations",
    "streams",
    "events",
    "modules",
    "contexts",
    "graphs",
    "graph_execs",
)
"""What must be gone after a test."""


@pytest.fixture(scope="session")
def _software_cuda() -> SoftwareCuda:
    try:
        return SoftwareCuda(software_driver.build(), host_kernels.build().path)
    except SoftwareDriverError as error:
        pytest.skip(str(error))


@pytest.fixture
def software_cuda(_software_cuda: SoftwareCuda) -> Iterator[SoftwareCuda]:
    """The driver, as new. After the test it must have seen no misuse, and nothing may be left."""
    _software_cuda.reset()
    yield _software_cuda
    errors, live = _software_cuda.take_errors(), _software_cuda.live()
    ignored = set(_software_cuda.ignored)
    _software_cuda.reset()
    assert not errors, "\n".join(errors)
    assert {name: live[name] for name in LEAKS if name in live and name not in ignored} == {}


@pytest.fixture(scope="session")
def formula_library(host_build: Path) -> Path:
    build(host_build, "formula_sessions")
    return host_build / "test-plugins" / "libbitheads_formula.so"


@pytest.fixture
def formula(formula_library: Path) -> Iterator[FormulaPlugin]:
    """The plugin, as new."""
    plugin = FormulaPlugin(formula_library)
    plugin.reset()
    yield plugin
    plugin.reset()


@pytest.fixture(scope="session")
def device_code_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    path = tmp_path_factory.mktemp("code") / "bitheads.fatbin"
    write_device_code(path, FAT_BINARY)
    return path


OpenEngine = Callable[..., HostEngine]


@pytest.fixture
def open_engine(
    library: HostLibrary,
    host_bundle: Path,
    formula: FormulaPlugin,
    device_code_file: Path,
    software_cuda: SoftwareCuda,
) -> Iterator[OpenEngine]:
    """Loads engines on the software device and closes them afterwards."""
    opened: list[HostEngine] = []

    def load(bundle: Path = host_bundle, backend: str = "formula", **options: object) -> HostEngine:
        chosen = {"plugins": formula.folder, "device_code": device_code_file, **options}
        opened.append(HostEngine(library, bundle, backend=backend, **chosen))
        return opened[-1]

    yield load
    for engine in opened:
        engine.close()


@pytest.fixture(scope="session")
def python_engine(host_bundle: Path) -> Iterator[Engine]:
    with Engine.load(host_bundle, "openvino") as engine:
        yield engine


@pytest.fixture(scope="session")
def expected(python_engine: Engine, host_bundle: Path) -> PackedFeatures:
    return expected_codes(python_engine, host_bundle, TEXTS)
