"""Which flavour builds, for which GPUs, and what is different in each version of TensorRT.

TensorRT proper cannot be installed without a GPU: a stand-in for it says so.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plan_cases import RTX, needs_rtx

from bitheads.export.errors import ExportError
from bitheads.export.plans import build_plan as building
from bitheads.export.plans import tensorrt_module
from bitheads.export.plans.build_plan import resolve_plan
from bitheads.export.plans.plan_config import (
    PlanConfig,
)


@pytest.mark.parametrize("error", [ImportError("no libnvinfer"), OSError("no libnvinfer")])
def test_a_flavour_that_does_not_import_is_an_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorrt_module, "import_module", broken)
    with pytest.raises(ExportError, match=r"cannot be imported \(no libnvinfer\)\. Type: pip"):
        resolve_plan(PlanConfig(flavour="tensorrt-rtx"))


@pytest.mark.parametrize(
    ("installed", "gpu", "expected"),
    [
        ({"tensorrt", "tensorrt_rtx"}, "9.0", "tensorrt"),
        ({"tensorrt", "tensorrt_rtx"}, None, "tensorrt-rtx"),
        ({"tensorrt"}, None, None),
        ({"tensorrt"}, "9.0", "tensorrt"),
        ({"tensorrt_rtx"}, "9.0", "tensorrt-rtx"),
    ],
)
def test_auto_takes_what_works(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], gpu: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: gpu)
    assert tensorrt_module.choose_flavour("auto", lambda message: None) == expected
    assert tensorrt_module.choose_flavour("none", lambda message: None) is None


def test_tensorrt_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: None)
    with pytest.raises(ExportError, match=r"found no GPU.*use --plan tensorrt-rtx"):
        tensorrt_module.choose_flavour("tensorrt", lambda message: None)


def test_the_capability_comes_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for libcuda, as there is no driver here."""
    values = {75: 9, 76: 0}

    def attribute(target: Any, which: int, device: Any) -> int:
        target._obj.value = values[which]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: 0,
        cuDeviceGet=lambda device, index: 0,
        cuDeviceGetAttribute=attribute,
    )
    monkeypatch.setattr(tensorrt_module.ctypes, "CDLL", lambda name: driver)
    assert tensorrt_module.gpu_capability() == "9.0"
    driver.cuInit = lambda flags: 100
    assert tensorrt_module.gpu_capability() is None, "CUDA_ERROR_NO_DEVICE"


def test_tensorrt_builds_for_the_gpu_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: "9.0")
    for wanted in ((), ("9.0",)):
        assert tensorrt_module.check_capabilities(None, "tensorrt", wanted) == ("9.0",)
    with pytest.raises(ExportError, match=r"got 8\.6, expected 9\.0"):
        tensorrt_module.check_capabilities(None, "tensorrt", ("8.6",))
    tensorrt_module.target(None, None, "tensorrt", ("9.0",))


@needs_rtx
def test_rtx_builds_for_what_it_lists(trt: Any) -> None:
    def check(*wanted: str) -> tuple[str, ...]:
        return tensorrt_module.check_capabilities(trt, "tensorrt-rtx", wanted)

    assert check("12.0", "8.6", "8.6") == ("8.6", "12.0")
    assert check("7.5") == ("7.5",)
    with pytest.raises(ExportError, match=r"got 9\.0, expected some of .*8\.6.* use --plan tensor"):
        check("8.6", "9.0")


@needs_rtx
def test_fp8_is_for_gpus_that_compute_in_it(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """RTX itself fails for others: "the model contains HW-specific datatypes"."""
    check = tensorrt_module.check_capabilities
    assert check(trt, "tensorrt-rtx", (), "fp8") == ("8.9", "12.0", "12.1")
    assert check(trt, "tensorrt-rtx", (), "int8")[0] == "8.0"
    with pytest.raises(ExportError, match=r"fp8: got compute capability 8\.6, expected 8\.9"):
        check(trt, "tensorrt-rtx", ("8.6", "8.9"), "fp8")
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: "8.0")
    assert check(None, "tensorrt", (), "int8") == ("8.0",)
    with pytest.raises(ExportError, match=r"fp8: got compute capability 8\.0"):
        check(None, "tensorrt", (), "fp8")
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda: "10.0")
    assert check(None, "tensorrt", (), "fp8") == ("10.0",)


def test_tensorrt_10_is_told_to_keep_types_and_11_knows_no_other() -> None:
    """Stand-ins: neither version can be installed without a GPU. 10 numbers the flag 1."""
    builder = SimpleNamespace(create_network=lambda flags: flags)
    trt_10 = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    assert tensorrt_module.create_network(trt_10, builder) == 2
    for trt_11 in (SimpleNamespace(), SimpleNamespace(NetworkDefinitionCreationFlag=object)):
        assert tensorrt_module.create_network(trt_11, builder) == 0


def test_tensorrt_10_is_told_to_normalize_in_float32() -> None:
    """A stand-in for a module whose layers have a type to compute in; RTX's have none."""

    class Layer:
        compute_precision = "float16"

    trt_10 = SimpleNamespace(INormalizationLayer=Layer, float32="float32")
    layer = Layer()
    tensorrt_module.normalize_in_fp32(trt_10, layer)
    assert layer.compute_precision == "float32"


TRT_10 = SimpleNamespace(
    __version__="10.14.1",
    BuilderFlag=SimpleNamespace(VERSION_COMPATIBLE="version flag"),
    HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS=1, SAME_COMPUTE_CAPABILITY=2),
)
"""A stand-in for TensorRT proper: its names, and its numbers for levels of hardware."""


@pytest.mark.parametrize(
    ("wanted", "flags", "level"),
    [
        ((), [], 0),
        (("version",), ["version flag"], 0),
        (("same-compute-capability",), [], 2),
        (("version", "ampere+"), ["version flag"], 1),
    ],
)
def test_tensorrt_is_told_what_else_a_plan_is_to_run_on(
    wanted: tuple[str, ...], flags: list[str], level: int
) -> None:
    given: list[str] = []
    config = SimpleNamespace(set_flag=given.append, hardware_compatibility_level=0)
    tensorrt_module.check_compatibility(TRT_10, "tensorrt", wanted, ["8.0"])
    tensorrt_module.make_compatible(TRT_10, config, wanted)
    assert (given, config.hardware_compatibility_level) == (flags, level)


def test_what_a_version_of_tensorrt_lacks_is_refused() -> None:
    """Levels came with 8.6, that of the same compute capability with 10."""
    old = SimpleNamespace(
        __version__="9.3",
        BuilderFlag=SimpleNamespace(),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS=1),
    )
    check = tensorrt_module.check_compatibility
    check(old, "tensorrt", ("ampere+",), ["8.0"])
    with pytest.raises(
        ExportError, match=r"got version,same-.*, which tensorrt 9\.3 does not have"
    ):
        check(old, "tensorrt", ("version", "same-compute-capability"), ["8.0"])
    with pytest.raises(ExportError, match=r"got a GPU of compute capability 7\.5 .*8\.0 or later"):
        check(TRT_10, "tensorrt", ("ampere+",), ["7.5"])
    check(TRT_10, "tensorrt", ("same-compute-capability",), ["7.5"])


@needs_rtx
@pytest.mark.parametrize("wanted", ["version", "same-compute-capability", "ampere+"])
def test_rtx_plans_are_of_one_version_and_many_gpus(wanted: str) -> None:
    """RTX 1.7 has the names: it looks for a library that it comes without, or ignores it."""
    config = replace(RTX, compatibility=(wanted,))
    with pytest.raises(ExportError, match=rf"got {re.escape(wanted)} with tensorrt-rtx.* leave"):
        resolve_plan(config)


class CacheConfig:
    """A stand-in for TensorRT's builder configuration: RTX's timing cache does nothing."""

    def __init__(self, sound: bool = True) -> None:
        self.data = b""
        self.sound = sound

    def create_timing_cache(self, data: bytes) -> Any:
        self.data = data
        return SimpleNamespace(serialize=lambda: bytearray(self.data + b"+"))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return self.sound


def test_timings_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    for expected in (b"+", b"++"):
        timings = tensorrt_module.use_timing_cache(CacheConfig(), path)
        building._write_timings(path, timings())
        assert path.read_bytes() == expected
    with pytest.raises(ExportError, match="of another GPU, another TensorRT, or damaged"):
        tensorrt_module.use_timing_cache(CacheConfig(sound=False), path)
    with pytest.raises(ExportError, match="cannot be read"):
        tensorrt_module.use_timing_cache(CacheConfig(), tmp_path)
    with pytest.raises(ExportError, match="The plan was written"):
        building._write_timings(path / "below a file", b"")


@needs_rtx
def test_rtx_has_no_timings_to_keep(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="measures no kernels"):
        resolve_plan(replace(RTX, timing_cache=tmp_path / "timings"))
