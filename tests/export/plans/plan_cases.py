"""A plan that is quick to build, and graphs as TensorRT reads them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest

from bitheads.engine.device.plan import Profile
from bitheads.export.plans import tensorrt_module
from bitheads.export.plans.plan_config import PlanConfig

ROOT = Path(__file__).parents[3]
needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed. Type: make device, "
    "or pip install -e '.[rtx]' -c constraints-device.txt",
)
ONE_PROFILE = (Profile((1, 1), (4, 16), (8, 32)),)
DEEP_LAYERS = 16
"""Layers of `deep_bundle`'s encoder, each an output of its graph."""
RTX = PlanConfig(flavour="tensorrt-rtx", profiles=ONE_PROFILE)


def parse(trt: Any, graph: Path) -> tuple[Any, ...]:
    """The network of a graph, and what must live as long."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = tensorrt_module.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(graph))
    return network, parser, builder, logger


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def plan_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("plans/*"))
