"""The GPU, its driver and the versions of what runs on it."""

from __future__ import annotations

import subprocess
from typing import Any

from benchmarks import record
from bitheads.engine.device.driver import Device

PACKAGES = (
    "pycuda", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu13", "onnxruntime-gpu",
    "onnxruntime", "torch", "transformers", "nvidia-cuda-nvcc",
)  # fmt: skip
ATTRIBUTES = (
    "MULTIPROCESSOR_COUNT", "CLOCK_RATE", "MEMORY_CLOCK_RATE", "GLOBAL_MEMORY_BUS_WIDTH",
    "L2_CACHE_SIZE", "MAX_THREADS_PER_MULTIPROCESSOR", "ECC_ENABLED",
)  # fmt: skip
SMI_FIELDS = (
    "driver_version", "name", "power.limit", "clocks.max.sm", "clocks.max.memory",
    "pcie.link.gen.max", "pcie.link.width.max", "temperature.gpu", "utilization.gpu", "memory.used",
)  # fmt: skip


def describe(device: Device) -> dict[str, Any]:
    """What a reader must know to compare; a field that cannot be read is left out."""
    cuda = device.cuda
    handle = cuda.Device(device.index)
    attributes = {}
    for name in ATTRIBUTES:
        try:
            attributes[name.lower()] = int(
                handle.get_attribute(getattr(cuda.device_attribute, name))
            )
        except (AttributeError, cuda.Error):
            continue
    return {
        "name": device.name,
        "compute_capability": device.compute_capability,
        "memory_gb": round(handle.total_memory() / 1e9, 1),
        "cuda_of_driver": cuda.get_driver_version(),
        "attributes": attributes,
        "nvidia_smi": nvidia_smi(device.index),
        "versions": record.versions(PACKAGES),
    }


def nvidia_smi(index: int) -> dict[str, str] | None:
    """What nvidia-smi says of a GPU, by field; None where it cannot be run."""
    query = f"--query-gpu={','.join(SMI_FIELDS)}"
    command = ["nvidia-smi", f"--id={index}", query, "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if done.returncode or len(values) != len(SMI_FIELDS):
        return None
    return dict(zip(SMI_FIELDS, values, strict=True))
