"""The kernels of a TensorRT-RTX plan, as the builder lists them; needs no GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitheads.engine.device.profile import Profile
from bitheads.export.plans import tensorrt_module
from bitheads.export.plans.network_checks import check_numerics

CAPABILITY = "8.9"
FUSED_ATTENTION = "mha"
"""In the name of a kernel that computes scores, softmax and sum of values at once."""


@dataclass(frozen=True)
class Kernel:
    """inputs, outputs: tensors with their types, as the builder writes them."""

    name: str
    inputs: str
    outputs: str


def plan_kernels(graph: Path, profile: Profile, capability: str = CAPABILITY) -> list[Kernel]:
    """All kernels, in order.

    Args:
        capability: compute capability of the GPU they are for.

    Raises RuntimeError for a graph that TensorRT-RTX does not take, ExportError for one that would
    lose precision in it.
    """
    trt: Any = tensorrt_module.load("tensorrt-rtx")
    lines: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            lines.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    network = tensorrt_module.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise RuntimeError(f"{graph}: cannot be read: {lines[-1]}")
    check_numerics(trt, network)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    tensorrt_module.target(trt, config, "tensorrt-rtx", [capability])
    shapes = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        shapes.set_shape(network.get_input(i).name, profile.min, profile.opt, profile.max)
    config.add_optimization_profile(shapes)
    if builder.build_serialized_network(network, config) is None:
        raise RuntimeError(f"{graph}: no plan: {lines[-1]}")
    pattern = r"^Name: (\S+), LayerType: \w+, Inputs: (.*?), Outputs: (.*)"
    return [Kernel(*found) for found in re.findall(pattern, "\n".join(lines), re.M)]


def count(kernels: list[Kernel], part: str) -> int:
    """Kernels with that in their name."""
    return sum(part in kernel.name for kernel in kernels)
