"""Who is compared: the engine on its GPU backends, and what people would use in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu.context import Bench, Predictor
from benchmarks.gpu.outcome import Skip
from benchmarks.gpu.speed import Open
from bitheads.engine import Engine, bundle
from bitheads.engine.bundle import graph_sha256
from bitheads.engine.cpu_encoder import CpuEncoder
from bitheads.engine.device.encoder import CALL_TOKENS
from bitheads.engine.device.plan import MODULES
from bitheads.engine.features.spec import Calibration
from bitheads.engine.heads.head_file import SUFFIX
from bitheads.engine.open_encoder import open_encoder
from bitheads.engine.process.quiet_import import import_quietly
from bitheads.engine.text_passes import TextPasses
from bitheads.engine.texts.tokenize import TextTokenizer


def open_engine(backend: str) -> Open:
    @contextmanager
    def opened(bench: Bench) -> Iterator[Predictor]:
        require(backend)
        with Engine.load(bench.bundle, backend=backend) as engine:
            yield engine

    return opened


@contextmanager
def open_without_graphs(bench: Bench) -> Iterator[Engine]:
    """The engine on TensorRT with every kernel launched by the host.

    Raises Skip for TensorRT-RTX, which records graphs by itself.
    """
    require("tensorrt")
    with open_uncaptured(bench) as (engine, could_capture):
        if not could_capture:
            raise Skip(
                f"{engine.backend} records CUDA graphs by itself: there is nothing to leave."
            )
        yield engine


@contextmanager
def open_uncaptured(bench: Bench, backend: str = "tensorrt") -> Iterator[tuple[Engine, bool]]:
    """The engine on a GPU backend, recording no graphs, and whether it would record any."""
    manifest = bench.manifest
    calibration = bundle.read_calibration(bench.bundle, manifest.spec)
    encoder: Any = open_encoder(bench.bundle, manifest, calibration, backend)
    could_capture, encoder.cuda_graphs = encoder.cuda_graphs, False
    with Engine(manifest, bench.tokenizer, encoder, calibration) as engine:
        add_heads(engine, bench)
        yield engine, could_capture


def add_heads(engine: Engine, bench: Bench) -> None:
    for path in sorted((bench.bundle / bundle.HEADS).glob(f"*{SUFFIX}")):
        engine.add_head(path)


def missing(backend: str) -> str | None:
    """What a backend needs and is not installed, or None; what is there must work."""
    if backend == "tensorrt" and not any(find_spec(module) for module in MODULES.values()):
        return "TensorRT is not installed. Type: pip install 'bitheads[gpu]'"
    if backend == "onnxruntime-cuda":
        onnxruntime = import_quietly("onnxruntime")
        found = onnxruntime.get_available_providers()
        if "CUDAExecutionProvider" not in found:
            return (
                f"onnxruntime {onnxruntime.__version__} has the providers {found}. Type: "
                "pip uninstall onnxruntime; pip install --force-reinstall onnxruntime-gpu"
            )
    return None


def require(backend: str) -> None:
    """Raises Skip with what is `missing`."""
    if reason := missing(backend):
        raise Skip(reason)


@contextmanager
def open_torch(bench: Bench) -> Iterator[Predictor]:
    import torch

    if not torch.cuda.is_available():
        raise Skip(
            f"torch {torch.__version__} cannot use the GPU: install a CUDA build of it "
            "(pytorch.org/get-started)."
        )
    from benchmarks.gpu.torch_peer import TorchPeer

    peer = TorchPeer(bench, "cuda", torch.float16)
    try:
        yield peer
    finally:
        peer.close()
        del peer
        torch.cuda.empty_cache()


class BoundedPasses(TextPasses):
    """Passes whose calls keep to what the encoder has room for, as DeviceEncoder's do."""

    def budget(self, max_batch_tokens: int | None) -> int:
        return min(super().budget(max_batch_tokens), self._encoder.max_batch_tokens)


class BoundedEngine(Engine):
    """An engine of such passes."""

    def __init__(
        self,
        manifest: bundle.Manifest,
        tokenizer: TextTokenizer,
        encoder: CpuEncoder,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(manifest, tokenizer, encoder, calibration)
        self._passes = BoundedPasses(manifest, tokenizer, encoder, calibration)


@contextmanager
def open_host_packing(bench: Bench) -> Iterator[Predictor]:
    """TensorRT without our kernels: hidden states come back, the CPU packs them and runs heads."""
    require("tensorrt")
    from benchmarks.gpu.host_session import HostSession
    from bitheads.engine.device.driver import Device
    from bitheads.engine.sessions import tensorrt

    manifest = bench.manifest
    device = Device()
    stream = None
    try:
        with device.current("making a stream"):
            stream = device.cuda.Stream()
        trt, plan = tensorrt.find_fitting_plan(
            bench.bundle, graph_sha256(manifest.artifacts), device
        )
        inner = tensorrt.Session(trt, plan, manifest.output_names, device, stream)
        session = HostSession(device, inner, stream, len(manifest.spec.layers), manifest.spec.dim)
        try:
            calibration = bundle.read_calibration(bench.bundle, manifest.spec)
            encoder = CpuEncoder(session, manifest.spec, calibration)
            encoder.max_batch_tokens = session.max_batch_tokens
            encoder.call_tokens = CALL_TOKENS
            engine = BoundedEngine(manifest, bench.tokenizer, encoder, calibration)
            add_heads(engine, bench)
            yield engine
        finally:
            session.close()
    finally:
        stream = None  # before its context goes
        device.close()


CONTENDERS: dict[str, Open] = {
    "tensorrt": open_engine("tensorrt"),
    "tensorrt, no CUDA graphs": open_without_graphs,
    "onnxruntime-cuda": open_engine("onnxruntime-cuda"),
    "torch fp16": open_torch,
    "tensorrt, packed on the CPU": open_host_packing,
}
