"""Tests on a real GPU. Without one they are skipped, and nothing of CUDA is even imported.

`BITHEADS_REQUIRE_GPU=1`, which `make test-gpu` sets, makes a missing GPU an error instead.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from benchmarks.gpu.context import Gpu

HERE = Path(__file__).parent

# In a process of its own: tests/device loads another library by the name of the driver.
PROBE = """
import ctypes
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    raise SystemExit("no NVIDIA driver (libcuda.so.1) on this machine")
count = ctypes.c_int()
status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
if status or not count.value:
    raise SystemExit(f"the NVIDIA driver finds no GPU (status {status})")
"""


def why_not() -> str | None:
    """Why the tests of this folder cannot run, or None if they can."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["the driver crashed"])[-1]
        return f"needs a GPU: {last}"
    if find_spec("pycuda") is None:
        return "there is a GPU, but pycuda is not installed. Type: make test-gpu"
    if hasattr(ctypes.CDLL(None), "soft_reset"):
        return "this process has the software driver of tests/device. Type: make test-gpu"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    reason = why_not() if ours else None
    if reason and os.environ.get("BITHEADS_REQUIRE_GPU") == "1":
        raise pytest.UsageError(reason)
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        # pycuda and TensorRT warn of their own future.
        item.add_marker(pytest.mark.filterwarnings("default"))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def gpu() -> Iterator[Gpu]:
    """The GPU with the shipped device code loaded, and a stream."""
    from benchmarks.gpu.context import open_gpu

    if hasattr(ctypes.CDLL(None), "soft_reset"):  # loaded since the tests were collected
        pytest.skip("this process has the software driver of tests/device. Type: make test-gpu")
    with open_gpu() as opened:
        yield opened


@pytest.fixture(scope="module", params=["tensorrt", "onnxruntime-cuda"])
def backend(request: pytest.FixtureRequest) -> str:
    """Skipped where it is not installed, which with `make test-gpu` is an error."""
    from benchmarks.gpu.contenders import missing

    if reason := missing(request.param):
        if os.environ.get("BITHEADS_REQUIRE_GPU") == "1":
            raise pytest.UsageError(reason)
        pytest.skip(f"there is a GPU, but {reason}")
    return str(request.param)


@pytest.fixture(scope="session")
def plan_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 with its shipped heads and a plan for this GPU; not to be written to.

    Without a plan if there is no TensorRT to build one.
    """
    from benchmarks.gpu.contenders import missing
    from bitheads.engine.bundle import read_manifest
    from bitheads.engine.device.profile import Profile
    from bitheads.export.plans.build_plan import build_plan
    from bitheads.export.plans.plan_config import PlanConfig

    ready = os.environ.get("BITHEADS_GPU_BUNDLE")
    bundle = Path(ready) if ready else request.getfixturevalue("minilm_bundle")
    folder = tmp_path_factory.mktemp("plans") / "all-MiniLM-L6-v2"
    shutil.copytree(bundle, folder)
    if missing("tensorrt"):
        return folder
    manifest = read_manifest(folder)
    longest = manifest.encoder.max_length
    profiles = (  # fewer than a build makes: each takes its time
        Profile((1, 1), (1, 32), (1, longest)),
        Profile((1, 1), (64, 64), (128, 64)),
        Profile((1, 1), (16, longest), (32, longest)),
    )
    assert build_plan(folder, manifest, PlanConfig("auto", profiles=profiles)) is not None
    return folder
