"""A GPU in software: the real pycuda over the software CUDA driver of this folder."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from typing import Any

import host_kernels
import pytest
import software_driver
from software_driver import SoftwareCuda, SoftwareDriverError

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
