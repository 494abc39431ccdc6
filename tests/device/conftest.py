"""A GPU in software: the real pycuda over the software CUDA driver of this folder."""

from __future__ import annotations

import gc
import importlib.util
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import host_kernels
import pytest
import software_driver
from software_driver import SoftwareCuda, SoftwareDriverError

if os.environ.get("BITHEADS_SANITIZE"):
    # It loads a library in a way that the sanitizer's runtime refuses.
    sys.modules["openvino"] = None  # type: ignore[assignment]

# What must be gone after a test.
LEAKS = ("device_allocations", "host_allocations", "streams", "modules", "contexts", "graph_execs")


@pytest.fixture(scope="session")
def _software_cuda() -> SoftwareCuda:
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed, type: make device")
    try:
        return SoftwareCuda(software_driver.build(), host_kernels.build().path)
    except SoftwareDriverError as error:
        pytest.skip(str(error))


@pytest.fixture
def software_cuda(_software_cuda: SoftwareCuda) -> Iterator[SoftwareCuda]:
    """The driver, as new. After the test it must have seen no misuse, and nothing may be left.

    A test that provokes misuse takes it with `take_errors()`; one that leaves something behind on
    purpose names it in `ignored`.
    """
    _software_cuda.reset()
    gc.freeze()  # all of torch need not be searched for what this test leaves behind
    yield _software_cuda
    gc.collect()
    errors = _software_cuda.take_errors()
    live = _software_cuda.live()
    ignored = set(_software_cuda.ignored)
    _software_cuda.reset()
    assert not errors, "\n".join(errors)
    left = {name: live[name] for name in LEAKS if name in live and name not in ignored}
    assert not left, f"left behind: {left}"


@pytest.fixture
def cuda(software_cuda: SoftwareCuda) -> Iterator[Any]:
    """`pycuda.driver` with the primary context current."""
    import pycuda.driver as cuda

    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        yield cuda
    finally:
        gc.collect()  # what needs this context to be freed
        context.pop()
        context.detach()


@pytest.fixture(scope="session")
def planned_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with three heads and a plan for the software device; not to be written to."""
    import software_tensorrt

    folder = tmp_path_factory.mktemp("device") / "bundle"
    return software_tensorrt.with_heads_and_plan(tiny_bundle, folder)


@pytest.fixture
def device_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the head of a fat binary: the software device has the kernels already."""
    from bitheads.engine.device.code import write_device_code

    path = tmp_path / "bitheads.fatbin"
    write_device_code(path, struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0))
    monkeypatch.setattr("bitheads.engine.device.code.DEVICE_CODE", path)
    return path


@pytest.fixture
def tensorrt_in_software(software_cuda: SoftwareCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """`import tensorrt` gives software_tensorrt, on the software device."""
    import software_tensorrt

    monkeypatch.setitem(sys.modules, "tensorrt", software_tensorrt)
    monkeypatch.setattr(software_tensorrt, "enqueue", software_cuda.enqueue)


@pytest.fixture
def gpu(software_cuda: SoftwareCuda, device_code: Path) -> Iterator[Any]:
    """The fixture of tests/gpu, on the software device."""
    from benchmarks.gpu.context import open_gpu

    with open_gpu() as opened:
        yield opened
