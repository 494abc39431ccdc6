"""TensorRT's two flavours as one: all that differs between them, or between versions, is here.

`tensorrt` measures kernels on the GPU it builds for. `tensorrt-rtx` builds without a GPU, for
several at once, and compiles kernels when it runs. Their Python modules have the same names.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitheads.engine.device.plan import MODULES
from bitheads.engine.device.plan_compatibility import (
    AMPERE_PLUS,
    LATER_VERSIONS,
    OLDEST_AMPERE,
    SAME_CAPABILITY,
)
from bitheads.export.errors import ExportError

INSTALL = {
    "tensorrt": "pip install 'bitheads[gpu]', on a machine with an NVIDIA GPU",
    "tensorrt-rtx": "pip install 'bitheads[rtx]'",
}
"""Flavour -> what to type to get it."""

_OLDEST_BY_DEFAULT = (8, 0)
"""Lowest compute capability that RTX builds for unasked: it lists Turing (7.5), too, but is made
for what came after."""
OLDEST_WITH_FP8 = (8, 9)
_HARDWARE_LEVELS = {SAME_CAPABILITY: "SAME_COMPUTE_CAPABILITY", AMPERE_PLUS: "AMPERE_PLUS"}
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


def choose_flavour(wanted: str, say: Callable[[str], None]) -> str | None:
    """The flavour to build with, or None for no plan.

    Args:
        wanted: a flavour, "none", or "auto": tensorrt if it is installed and there is a GPU, or
            else tensorrt-rtx if it is installed.
        say: called with one line if "auto" finds neither.

    Raises ExportError if a flavour was named that cannot build here.
    """
    if wanted == "none":
        return None
    if wanted == "auto":
        for flavour in ("tensorrt", "tensorrt-rtx"):
            if is_installed(flavour) and (flavour != "tensorrt" or gpu_capability()):
                return flavour
        say(f"no TensorRT here, so no plan. To build one: {INSTALL['tensorrt-rtx']}")
        return None
    if not is_installed(wanted):
        raise ExportError(
            f"--plan {wanted}: needs the package {MODULES[wanted]!r}, which is not installed. "
            f"Type: {INSTALL[wanted]}"
        )
    if wanted == "tensorrt" and gpu_capability() is None:
        raise ExportError(
            "--plan tensorrt: found no GPU, expected the one the plan is to run on. Build it "
            "there, or use --plan tensorrt-rtx, which needs none."
        )
    return wanted


def is_installed(flavour: str) -> bool:
    return find_spec(MODULES[flavour]) is not None


def load(flavour: str) -> Any:
    """The flavour's module. Raises ExportError if it cannot be imported."""
    try:
        return import_module(MODULES[flavour])
    except (ImportError, OSError) as error:  # OSError: a library that it loads
        raise ExportError(
            f"--plan {flavour}: {MODULES[flavour]} cannot be imported ({error}). "
            f"Type: {INSTALL[flavour]}"
        ) from error


def gpu_capability() -> str | None:
    """Compute capability of the first GPU, such as "8.6"; None without a GPU or its driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = (ctypes.c_int() for _ in range(3))
    done = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    return f"{major.value}.{minor.value}" if done == 0 else None


def check_capabilities(
    trt: Any, flavour: str, wanted: Sequence[str], precision: str | None = None
) -> tuple[str, ...]:
    """The compute capabilities to build for, ascending; none wanted means all that make sense.

    Args:
        precision: see PlanConfig.

    Raises ExportError for those the flavour cannot build for.
    """
    if flavour == "tensorrt":
        here = gpu_capability()
        if here is None:
            raise ExportError("--plan tensorrt: the GPU is gone. Look at nvidia-smi.")
        if wanted and set(wanted) != {here}:
            raise ExportError(
                f"--plan-capabilities: got {','.join(wanted)}, expected {here}, as tensorrt builds "
                "for the GPU at hand. Leave it out, or use --plan tensorrt-rtx."
            )
        _check_fp8([here], precision)
        return (here,)
    offered = _rtx_capabilities(trt)
    if unknown := sorted(set(wanted) - set(offered)):
        raise ExportError(
            f"--plan-capabilities: got {','.join(unknown)}, expected some of "
            f"{','.join(offered)}, which are those of tensorrt-rtx {trt.__version__}. For other "
            "GPUs use --plan tensorrt on a machine that has one."
        )
    _check_fp8(wanted, precision)
    oldest = OLDEST_WITH_FP8 if precision == "fp8" else _OLDEST_BY_DEFAULT
    chosen = wanted or [c for c in offered if _numbers(c) >= oldest]
    return tuple(sorted(set(chosen), key=_numbers))


def _check_fp8(capabilities: Sequence[str], precision: str | None) -> None:
    lack_it = [one for one in capabilities if _numbers(one) < OLDEST_WITH_FP8]
    if precision == "fp8" and lack_it:
        raise ExportError(
            f"--plan-precision fp8: got compute capability {','.join(lack_it)}, expected 8.9 or "
            "later: earlier GPUs do not compute in it. Use --plan-precision int8 for these."
        )


def target(trt: Any, config: Any, flavour: str, capabilities: Sequence[str]) -> None:
    """Tells the builder what to build for; tensorrt only knows the GPU at hand."""
    if flavour == "tensorrt":
        return
    offered = _rtx_capabilities(trt)
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        if not config.set_compute_capability(offered[capability], index):
            raise ExportError(f"--plan-capabilities: TensorRT refused {capability}. Leave it out.")


def check_compatibility(
    trt: Any, flavour: str, wanted: Sequence[str], capabilities: Sequence[str]
) -> None:
    """Raises ExportError for what the flavour, or this version of it, cannot be compatible with.

    RTX has TensorRT's names for all of it, and neither: its plans are for one version, as it comes
    without the runtime that a plan would bring, and it ignores a level of hardware.

    Args:
        capabilities: to build for, see `check_capabilities`.
    """
    if not wanted:
        return
    if flavour == "tensorrt-rtx":
        raise ExportError(
            f"--plan-compatibility: got {','.join(wanted)} with tensorrt-rtx, whose plans run on "
            "the version that built them, on all GPUs of --plan-capabilities. Name those, and "
            "leave this out; or use --plan tensorrt on a machine with a GPU."
        )
    lacks = [name for name in wanted if _flag(trt, name) is None]
    if lacks:
        raise ExportError(
            f"--plan-compatibility: got {','.join(lacks)}, which tensorrt {trt.__version__} does "
            "not have. Install a later version, or leave it out."
        )
    too_old = [one for one in capabilities if _numbers(one) < OLDEST_AMPERE]
    if AMPERE_PLUS in wanted and too_old:
        raise ExportError(
            f"--plan-compatibility {AMPERE_PLUS}: got a GPU of compute capability {too_old[0]} to "
            "build on, expected 8.0 or later. Build it on one, or leave this out."
        )


def make_compatible(trt: Any, config: Any, wanted: Sequence[str]) -> None:
    """Tells the builder what else the plan is to run on; see `check_compatibility`.

    A plan for later versions contains the runtime that executes it.
    """
    for name in wanted:
        if name == LATER_VERSIONS:
            config.set_flag(_flag(trt, name))
        else:
            config.hardware_compatibility_level = _flag(trt, name)


def _flag(trt: Any, compatibility: str) -> Any:
    """The module's own name for it, None in versions that have none."""
    if compatibility == LATER_VERSIONS:
        return getattr(trt.BuilderFlag, "VERSION_COMPATIBLE", None)
    levels = getattr(trt, "HardwareCompatibilityLevel", None)
    return getattr(levels, _HARDWARE_LEVELS[compatibility], None)


def create_network(trt: Any, builder: Any) -> Any:
    """An empty network whose tensors have the types the graph gives them.

    TensorRT 10 must be told so, or it chooses types by its own flags. 11 and RTX know no other
    networks: the flag is there and means nothing, or is gone. Batches are explicit since 10.
    """
    flags = getattr(trt, "NetworkDefinitionCreationFlag", None)
    strongly_typed = getattr(flags, "STRONGLY_TYPED", None)
    return builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))


def normalize_in_fp32(trt: Any, layer: Any) -> None:
    """Has a normalization layer compute in float32, whatever the type of its input.

    In TensorRT 10 a layer has a type to compute in, which the ONNX parser sets. 11 and RTX have
    no such choice: RTX 1.7 casts to float32 for an input of float16, whatever the graph's
    stash_type says. tests/export/plans/test_network_checks.py reads that from the kernels it lists.
    """
    layer.__class__ = trt.INormalizationLayer  # get_layer returns the base class
    if hasattr(layer, "compute_precision"):
        layer.compute_precision = trt.float32


def no_tf32(trt: Any, config: Any) -> None:
    """Has matrix products of float32 take all of its bits, which is not the default."""
    flag = getattr(trt.BuilderFlag, "TF32", None)
    if flag is not None:
        config.clear_flag(flag)


def check_timing_cache(flavour: str) -> None:
    """Raises ExportError for a flavour without timings to keep.

    RTX measures nothing while it builds: its timing cache has no effect, and has been deprecated
    since RTX 1.2. What it compiles at run time goes to a runtime cache, which is the session's.
    """
    if flavour == "tensorrt-rtx":
        raise ExportError(
            "--timing-cache: tensorrt-rtx measures no kernels, so it has nothing to keep. Leave "
            "the option out."
        )


def use_timing_cache(config: Any, path: Path) -> Callable[[], bytes]:
    """Takes earlier measurements of kernels from a file, if it exists.

    Returns what to call after the build for the file's new contents.

    Raises ExportError if the cache is of another GPU or version.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ExportError(f"--timing-cache {path}: cannot be read ({error}).") from error
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        raise ExportError(
            f"--timing-cache {path}: is of another GPU, another TensorRT, or damaged. Delete it, "
            "or name another file."
        )
    return lambda: bytes(cache.serialize())


def _rtx_capabilities(trt: Any) -> dict[str, Any]:
    """Compute capability such as "8.6" -> the module's name for it (SM86), ascending."""
    members = trt.ComputeCapability.__members__.items()
    found = {f"{name[2:-1]}.{name[-1]}": value for name, value in members if name[2:].isdecimal()}
    return dict(sorted(found.items(), key=lambda item: _numbers(item[0])))


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
