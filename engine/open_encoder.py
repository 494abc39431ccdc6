"""A bundle's encoder, on the backend that was asked for or on the best that there is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitheads.engine import bundle
from bitheads.engine.bundle import graph_files, graph_sha256
from bitheads.engine.cpu_encoder import CpuEncoder
from bitheads.engine.device.plan import PLANS
from bitheads.engine.encoder import Encoder
from bitheads.engine.errors import BackendError, BitheadsError
from bitheads.engine.features.embedding import Embedder
from bitheads.engine.features.spec import Calibration
from bitheads.engine.files.cache import make_cache_folder
from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.install import how_to_install
from bitheads.engine.sessions import (
    BACKENDS,
    DEVICE_BACKENDS,
    EncoderSession,
    open_device_session,
    open_lanes,
    open_session,
    tuning,
)
from bitheads.engine.sessions.agreement import check_min_sign_agreement, within
from bitheads.engine.sessions.compiled_graphs import CompiledGraphs

if TYPE_CHECKING:
    from bitheads.engine.device.encoder import DeviceEncoder

MAX_LANES_GRAPH_BYTES = 256 << 20
"""Bytes of a graph above which there are no lanes: they are a second compiled graph, which costs
more memory than it gains time."""

logger = logging.getLogger("bitheads")


def open_encoder(
    folder: Path,
    manifest: bundle.Manifest,
    calibration: Calibration | None,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    embedder: Embedder | None = None,
    min_sign_agreement: float | None = None,
) -> Encoder[Any]:
    """Loads a bundle's encoder.

    Args:
        backend: a key of BACKENDS, one of DEVICE_BACKENDS, or "auto": a GPU's if there is one
            and it can be used, else a CPU's. A machine that looks as if it were meant to use its
            GPU, but cannot, gets one warning.
        precision: "auto", or what the encoder must compute in: on a CPU "fp32", "bf16", or
            "int8_dynamic" or "int8", which only openvino has, and only of bundles that were built
            with it; on a GPU the type of the bundle's graph, "fp16" or "fp32", or with "tensorrt" a
            key of engine.bundle.GPU_GRAPHS, of bundles that were built with it. "fp8" is for a GPU
            alone.
        threads: processor threads, None for all cores.
        embedder: makes the bundle's embeddings; None: it gives none.
        min_sign_agreement: what "auto" keeps to on a CPU, see engine.sessions.agreement; None:
            floating point, as the build let it pass.

    Raises BackendError or PlanError for a backend that cannot be had.
    """
    check_min_sign_agreement(min_sign_agreement, precision)
    if backend == "auto" and precision == "fp8":
        backend = next(name for name, row in DEVICE_BACKENDS.items() if row.runs_quantized)
    if backend in DEVICE_BACKENDS:
        return _open_on_device(folder, manifest, calibration, backend, precision, embedder)
    if backend == "auto" and precision in ("auto", manifest.encoder.precision):
        encoder = _open_on_any_device(folder, manifest, calibration, precision, embedder)
        if encoder is not None:
            return encoder
    if backend not in ("auto", *BACKENDS):
        raise BackendError(
            f"backend: got {backend!r}, expected 'auto' or one of "
            f"{sorted([*BACKENDS, *DEVICE_BACKENDS])}."
        )
    if precision in bundle.QUANTIZED_GRAPHS and precision not in manifest.quantized:
        raise BackendError(
            f"precision: got {precision!r}, but bundle {folder} has no "
            f"{bundle.graph_file(precision)}. Build it with the options it was built with, and "
            f"--precision {precision}: bitheads build --precision {precision} "
            f"--encoder {manifest.spec.encoder} --output {folder} --force"
        )
    outputs = manifest.output_names

    def open_way(way: tuning.Way) -> EncoderSession:
        name = bundle.graph_file(way[1])
        cache = _open_cache(folder, manifest, name)
        return open_session(folder / name, outputs, *way, threads, cache)

    way = backend, precision
    choices, times = tuning.ways(backend, precision), make_cache_folder("times")
    if min_sign_agreement is not None:
        choices = within(choices, manifest, min_sign_agreement)
        way = choices[0]
    if len(choices) > 1 and times is not None:
        graph_hash, longest = _hash_of_graphs(manifest, choices), manifest.encoder.max_length
        way, session = tuning.open_fastest(choices, open_way, graph_hash, times, threads, longest)
    else:
        session = open_way(way)
    name = bundle.graph_file(way[1])
    graph, cache = folder / name, _open_cache(folder, manifest, name)
    lanes = None
    files = manifest.artifacts.items()
    graph_bytes = sum(file.bytes for name, file in files if name.startswith(bundle.GRAPH))
    if (threads or count_cores()) > 1 and graph_bytes <= MAX_LANES_GRAPH_BYTES:
        lanes = partial(open_lanes, graph, outputs, session.backend, way[1], threads, cache)
    round_up_to = manifest.encoder.max_length if BACKENDS[session.backend].rounds_lengths else None
    return CpuEncoder(session, manifest.spec, calibration, threads, lanes, round_up_to, embedder)


def _hash_of_graphs(manifest: bundle.Manifest, ways: Sequence[tuning.Way]) -> str:
    """What times are known by: of the graphs that the ways run."""
    names = dict.fromkeys(bundle.graph_file(precision) for _, precision in ways)
    hashes = [graph_sha256(manifest.artifacts, name) for name in names]
    return hashes[0] if len(hashes) == 1 else " ".join(hashes)


def _open_cache(folder: Path, manifest: bundle.Manifest, graph: str) -> CompiledGraphs | None:
    files, cache = graph_files(manifest.artifacts, graph), make_cache_folder("compiled")
    if cache is None:
        return None

    def is_unchanged() -> bool:
        return all(bundle.Artifact.of(folder / f) == manifest.artifacts[f] for f in files)

    return CompiledGraphs(cache, graph_sha256(manifest.artifacts, graph), is_unchanged)


def _open_on_any_device(
    folder: Path,
    manifest: bundle.Manifest,
    calibration: Calibration | None,
    precision: str,
    embedder: Embedder | None,
) -> DeviceEncoder | None:
    """The first device backend that works, or None."""
    if find_spec("pycuda") is None:
        if any((folder / PLANS).glob("*.plan")):
            logger.warning(
                "the bundle has plans for a GPU, but pycuda is not installed: running on the CPU. "
                "Type: %s, or pass backend='openvino'.",
                how_to_install("gpu"),
            )
        return None
    failures = []
    for backend in DEVICE_BACKENDS:
        try:
            return _open_on_device(folder, manifest, calibration, backend, precision, embedder)
        except BitheadsError as error:
            failures.append(f"{backend}: {error}")
            if not _has_device():
                break  # the others would say the same
    logger.warning("no GPU can be used: running on the CPU.\n%s", "\n".join(failures))
    return None


def _has_device() -> bool:
    from bitheads.engine.device.driver import Device

    try:
        Device().close()
    except BackendError:
        return False
    return True


def _open_on_device(
    folder: Path,
    manifest: bundle.Manifest,
    calibration: Calibration | None,
    backend: str,
    precision: str,
    embedder: Embedder | None,
) -> DeviceEncoder:
    from bitheads.engine.device.code import DeviceCode
    from bitheads.engine.device.driver import Device
    from bitheads.engine.device.encoder import DeviceEncoder

    if precision in bundle.GPU_GRAPHS:
        if not DEVICE_BACKENDS[backend].runs_quantized:
            raise BackendError(
                f"precision: got {precision!r} with backend {backend!r}, which runs the bundle's "
                "own graph alone. Pass backend='tensorrt' (or for int8 on a CPU 'openvino'), or "
                "precision='auto'."
            )
        if (graph := bundle.GPU_GRAPHS[precision]) not in manifest.artifacts:
            raise BackendError(
                f"precision: got {precision!r} with backend {backend!r}, but bundle {folder} has "
                f"no {graph}. Build it with the options it was built with, and --plan-precision "
                f"{precision}: bitheads build --plan-precision {precision} --encoder "
                f"{manifest.spec.encoder} --output {folder} --force"
            )
    elif precision not in ("auto", manifest.encoder.precision):
        raise BackendError(
            f"precision: got {precision!r}, but on a GPU the graph's own types are used: "
            f"{manifest.encoder.precision}. Pass precision='auto', or export the bundle again "
            f"with --precision {precision}."
        )
    device = Device()
    with ExitStack() as undo_device:
        undo_device.callback(device.close)
        with device.current("loading the encoder"), ExitStack() as undo:
            stream = device.cuda.Stream()
            code = DeviceCode(device)
            undo.callback(code.close)
            session = open_device_session(backend, folder, manifest, device, stream, precision)
            undo.callback(session.close)
            encoder = DeviceEncoder(
                device, code, session, manifest.spec, calibration, stream, embedder
            )
            undo.pop_all()
        undo_device.pop_all()
    return encoder
