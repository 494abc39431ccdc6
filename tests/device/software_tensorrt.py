"""Stands in for TensorRT on the software device: its encoder is ONNX Runtime on the same graph.

TensorRT's own library runs on GPUs alone. This module has the part of its Python API that
engine.sessions.tensorrt calls, and is as strict as the documentation: shapes outside the profile,
unset addresses and missing device memory are refused. A call is work on the stream: it runs when
the stream gets there, reads and writes the bound addresses then, and can be recorded into a graph.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from random_heads import random_head

from bitheads.engine.bundle import GPU_GRAPHS, GRAPH, graph_sha256, read_manifest
from bitheads.engine.device.plan import Plan, PlanInfo, write_plan
from bitheads.engine.device.profile import Profile
from bitheads.engine.features.spec import PositionPooling
from bitheads.engine.heads.head_file import write_head

__version__ = "10.99.0.1"
ACTIVATION_BYTES = 4096
FILLS = 0x5A
"""What a call leaves in its activations."""

enqueue: Callable[..., None] = print
"""SoftwareCuda.enqueue, as soon as a test has one."""

fail_contexts = False
"""Set by tests: execution contexts cannot be made, as when memory is full."""


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    USER_MANAGED = 2


class RtxCudaGraphStrategy(Enum):
    """Becomes CudaGraphStrategy in tests where this module stands in for TensorRT-RTX."""

    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class RuntimeConfig:
    """TensorRT-RTX's; see RtxCudaGraphStrategy."""

    strategy = ExecutionContextAllocationStrategy.STATIC
    cuda_graph_strategy = RtxCudaGraphStrategy.DISABLED

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        try:
            content = json.loads(data)
        except ValueError:
            self.logger.log(ILogger.Severity.ERROR, "magic tag does not match")
            return None
        if content["has_runtime"] and not self.engine_host_code_allowed:
            self.logger.log(ILogger.Severity.ERROR, "host code is not allowed in this runtime")
            return None
        return Engine(content, self.logger)


def open_graph(path: str | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # As the graph has them: ONNX Runtime moves those of FP8 to where its own operators refuse them.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Engine:
    def __init__(self, content: dict[str, Any], logger: Any) -> None:
        self.session = open_graph(content["graph"])
        self.logger = logger
        self.profiles = [Profile(*map(tuple, shapes)) for shapes in content["profiles"]]
        self.inputs = [port.name for port in self.session.get_inputs()]
        self.outputs = [port.name for port in self.session.get_outputs()]
        self.device_memory_size_v2 = ACTIVATION_BYTES
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.num_optimization_profiles = len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(
        self, how: ExecutionContextAllocationStrategy | RuntimeConfig
    ) -> Context | None:
        if isinstance(how, RuntimeConfig):
            assert how.cuda_graph_strategy is RtxCudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        strategy = how.strategy if isinstance(how, RuntimeConfig) else how
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if fail_contexts:
            self.logger.log(ILogger.Severity.ERROR, "out of memory")
            return None
        return Context(self)


@dataclass
class Call:
    """What a call works on: values at the time it was enqueued."""

    shape: tuple[int, int]
    addresses: dict[str, int]
    activations: int


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.profile: Profile | None = None
        self.shapes: dict[str, tuple[int, int]] = {}
        self.addresses: dict[str, int] = {}
        self.activations = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= self.engine.device_memory_size_v2
        self.activations = memory

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream
        self.profile = self.engine.profiles[index]
        self.shapes.clear()
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0, "TensorRT wants 256-byte alignment"
        self.addresses[name] = address
        return name in (*self.engine.inputs, *self.engine.outputs)

    def set_input_shape(self, name: str, shape: tuple[int, int]) -> bool:
        if self.profile is None or not self.profile.fits(*shape):
            self.engine.logger.log(ILogger.Severity.ERROR, f"{shape} is outside the profile")
            return False
        self.shapes[name] = shape
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        complete = (
            set(self.shapes) == set(engine.inputs)
            and set(self.addresses) == {*engine.inputs, *engine.outputs}
            and len(set(self.shapes.values())) == 1
            and self.activations
        )
        if not complete:
            engine.logger.log(ILogger.Severity.ERROR, "not everything is bound")
            return False
        shape = next(iter(self.shapes.values()))
        call = Call(shape, dict(self.addresses), self.activations)
        enqueue(stream, lambda: run(engine, call))
        return True


def run(engine: Engine, call: Call) -> None:
    feeds = {
        name: array_at(call.addresses[name], call.shape, np.dtype(np.int64))
        for name in engine.inputs
    }
    for name, hidden in zip(engine.outputs, engine.session.run(engine.outputs, feeds), strict=True):
        array_at(call.addresses[name], hidden.shape, hidden.dtype)[:] = hidden
    ctypes.memset(call.activations, FILLS, ACTIVATION_BYTES)


def array_at(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Device memory of the software device, which is memory of this process."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def write_software_plan(
    bundle: Path,
    profiles: list[Profile],
    flavour: str = "tensorrt",
    version: str = __version__,
    compatibility: tuple[str, ...] = (),
    precision: str = "fp16",
) -> Plan:
    """A plan that this module can load, in a bundle.

    One for later versions has, as TensorRT's own, a runtime in it, which must be allowed to run.
    """
    manifest = read_manifest(bundle)
    graph = bundle / GPU_GRAPHS.get(precision, GRAPH)
    shapes = [[p.min, p.opt, p.max] for p in profiles]
    has_runtime = "version" in compatibility
    content = {"graph": str(graph), "profiles": shapes, "has_runtime": has_runtime}
    data = json.dumps(content).encode()
    session = open_graph(graph)
    dtype = {"fp16": "float16", "fp32": "float32"}[manifest.encoder.precision]
    info = PlanInfo(
        graph_sha256=graph_sha256(manifest.artifacts, graph.name),
        flavour=flavour,
        version=version,
        compute_capabilities=("8.6",),
        precision=precision if precision in GPU_GRAPHS else manifest.encoder.precision,
        profiles=tuple(profiles),
        inputs={port.name: "int64" for port in session.get_inputs()},
        outputs=dict.fromkeys(manifest.output_names, dtype),
        plan_bytes=len(data),
        plan_sha256=hashlib.sha256(data).hexdigest(),
        compatibility=compatibility,
    )
    return write_plan(bundle, info, data)


PROFILES = [
    Profile((1, 1), (4, 16), (16, 16)),
    Profile((1, 1), (4, 64), (8, 64)),
]


def with_heads_and_plan(
    bundle: Path, folder: Path, profiles: list[Profile] = PROFILES, flavour: str = "tensorrt"
) -> Path:
    """A copy of a bundle with a head for each position pooling, and a plan."""
    shutil.copytree(bundle, folder)
    spec = read_manifest(folder).spec
    for seed, pooling in enumerate(PositionPooling):
        head = random_head(spec, pooling.value, pooling, classes=2 + seed, seed=seed)
        write_head(head, folder / "heads" / f"{pooling.value}.safetensors")
    write_software_plan(folder, profiles, flavour)
    return folder
