"""Encoders that turn batches into codes, on a CPU or on a GPU, behind one protocol."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import bundle
from bitheads.engine.batching import round_lengths
from bitheads.engine.bundle import graph_files, graph_sha256
from bitheads.engine.device.plan import PLANS
from bitheads.engine.errors import BackendError, BitheadsError
from bitheads.engine.features.pack import pack_layers
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, FeatureSpec
from bitheads.engine.files.cache import make_cache_folder
from bitheads.engine.heads.cpu import CpuHead, HeadThreads, load_head
from bitheads.engine.heads.head import Head
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.predictions import Prediction
from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.lifetime import Lifetime, give_back_memory
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.engine.sessions import BACKENDS, EncoderSession, open_lanes, open_session, tuning
from bitheads.engine.sessions.compiled_graphs import CompiledGraphs
from bitheads.engine.sessions.lanes import Lanes
from bitheads.engine.types import BatchRunner, PlacedBatch, Stats

if TYPE_CHECKING:
    from bitheads.engine.device.driver import Device
    from bitheads.engine.device.encoder import DeviceEncoder, DeviceSession

DEVICE_BACKENDS = ("tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda")
"""Backends that need a GPU, fastest first; the second and third want no plan."""

CPU_BATCH_TOKENS = 1024
"""Default token budget of an encoder call: past this, larger batches gain nothing on a CPU."""

CPU_CALL_TOKENS = 32
"""What an encoder call costs beside its tokens, in tokens: 30 to 44 were measured with OpenVINO on
all-MiniLM-L6-v2, where 16 to 48 make no difference to the time of a call on many texts."""

OPEN_LANES_FROM = 16
"""Batches of a call: for fewer, compiling the graph once more takes longer than lanes save."""

MAX_LANES_GRAPH_BYTES = 256 << 20
"""Lanes are a second compiled graph: for larger ones they cost more memory than they gain time."""

logger = logging.getLogger("bitheads")

LoadedHead = TypeVar("LoadedHead", bound=Head)


class Encoder(Protocol[LoadedHead]):
    """What makes codes of token ids, and answers of codes.

    Attributes:
        name: backend and precision, such as "openvino bf16".
        max_batch_tokens: token budget of a call that serves it best.
        call_tokens: what a call costs beside its tokens, in tokens; see `cut_batches`.
    """

    name: str
    max_batch_tokens: int
    call_tokens: int

    def pad_lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """What texts of these lengths are to be padded to at least, int64 [texts]."""

    def encode(self, batches: Iterable[PlacedBatch], codes: NDArray[np.uint8]) -> Iterator[Stats]:
        """Packs each batch's rows straight to their place in `codes`; yields each batch's cost.

        Args:
            codes: uint8 [tokens, code_bytes], written in place.

        Raises BackendError if the encoder fails.
        """

    def open_runners(self) -> tuple[BatchRunner, list[BatchRunner]]:
        """For who decides batch by batch what runs when, as a server does.

        Returns the way to run one batch on all cores, and those that run at the same time, on a
        share of the cores each; none if the encoder has no lanes. The one and the others are not
        to be used at once. They raise as `encode`.
        """

    def load_head(self, head: FoldedHead) -> LoadedHead:
        """The head as `predict` wants it. Raises HeadError if it cannot run here."""

    def predict(
        self, features: PackedFeatures, heads: Sequence[LoadedHead]
    ) -> dict[str, Prediction]:
        """See engine.heads.cpu.predict_heads."""

    def close(self) -> None:
        """Frees what it holds; once is enough, more does nothing.

        Waits for calls that run; later ones raise ClosedError. In a process that was forked since
        it does nothing, and everything else raises ForkedError there.
        """


@runtime_checkable
class AnsweringEncoder(Encoder[LoadedHead], Protocol[LoadedHead]):
    """An encoder that runs the heads where it runs itself, so that codes stay there."""

    def encode_and_predict(
        self,
        batches: Iterable[PlacedBatch],
        heads: Sequence[LoadedHead],
        logits: Sequence[NDArray[np.float32]],
    ) -> Iterator[Stats]:
        """Fills each head's logits, float32 [texts, classes]; yields each batch's cost."""


class CpuEncoder:
    """See Encoder: a session's hidden states, packed by the native kernels.

    A single batch runs on a session that has all threads; the batches of larger calls in lanes,
    sessions that run at the same time. Calls from several threads take turns, batch by batch.
    """

    max_batch_tokens = CPU_BATCH_TOKENS
    call_tokens = CPU_CALL_TOKENS

    def __init__(
        self,
        session: EncoderSession,
        spec: FeatureSpec,
        calibration: Calibration | None,
        threads: int | None = None,
        open_lanes: Callable[[], list[EncoderSession]] | None = None,
        round_up_to: int | None = None,
    ) -> None:
        """
        Args:
            threads: that run the heads, None for all cores.
            open_lanes: called once, for the first call of many batches; None: there are none.
            round_up_to: most tokens of a text, for a backend that makes a kernel for every shape:
                lengths are rounded up, so that there are few. None: they stay as they are.
        """
        self.name = f"{session.backend} {session.precision}"
        self._lifetime = Lifetime(f"this encoder ({self.name})")
        self._session = session
        self._spec = spec
        self._calibration = calibration or Calibration()
        self._lock = threading.Lock()
        self._open_lanes = open_lanes
        self._round_up_to = round_up_to
        self._lanes: Lanes | None = None
        self._heads = HeadThreads(threads)

    def pad_lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        return lengths if self._round_up_to is None else round_lengths(lengths, self._round_up_to)

    def encode(self, batches: Iterable[PlacedBatch], codes: NDArray[np.uint8]) -> Iterator[Stats]:
        with self._lifetime:
            batches = iter(batches)
            first = list(islice(batches, OPEN_LANES_FROM))
            lanes = self._find_lanes(len(first))
        batches = chain(first, batches)
        if lanes is not None:
            return lanes.run(lambda lane, batch: self._encode_batch(lane, batch, codes), batches)
        return self._encode_in_turn(batches, codes)

    def _encode_in_turn(
        self, batches: Iterable[PlacedBatch], codes: NDArray[np.uint8]
    ) -> Iterator[Stats]:
        for batch in batches:
            with self._lifetime, self._lock:
                stats = self._encode_now(self._session, batch, codes)
            yield stats

    def _find_lanes(self, num_batches: int) -> Lanes | None:
        """Those there are; opens them if there are `OPEN_LANES_FROM` batches."""
        if self._open_lanes is None or num_batches < 2:
            return None
        with self._lock:
            if self._lanes is None and num_batches >= OPEN_LANES_FROM:
                self._lanes = Lanes(self._open_lanes())
            return self._lanes if self._lanes is not None and len(self._lanes) > 1 else None

    def open_runners(self) -> tuple[BatchRunner, list[BatchRunner]]:
        with self._lifetime, self._lock:
            sessions = [] if self._open_lanes is None else self._open_lanes()
        lanes: list[BatchRunner] = [partial(self._encode_batch, s) for s in sessions]
        return partial(self._encode_batch, self._session), lanes if len(lanes) > 1 else []

    def load_head(self, head: FoldedHead) -> CpuHead:
        return load_head(head)

    def predict(self, features: PackedFeatures, heads: Sequence[CpuHead]) -> dict[str, Prediction]:
        with self._lifetime:
            return self._heads.predict(features, heads)

    def close(self) -> None:
        """Waits for batches that run. Runners must not be kept: they hold the session's memory."""
        if not self._lifetime.end():
            return
        if self._lanes is not None:
            self._lanes.close()
        self._heads.close()
        del self._session, self._lanes, self._open_lanes
        give_back_memory()

    def _encode_batch(
        self, session: EncoderSession, batch: PlacedBatch, codes: NDArray[np.uint8]
    ) -> Stats:
        with self._lifetime:
            return self._encode_now(session, batch, codes)

    def _encode_now(
        self, session: EncoderSession, batch: PlacedBatch, codes: NDArray[np.uint8]
    ) -> Stats:
        spec, calibration, tokens = self._spec, self._calibration, batch.tokens
        started_s = time.perf_counter()
        try:
            layers = session.run(tokens)
        except Exception as error:  # each backend has its own
            raise BackendError(
                f"{self.name} failed on a batch of {list(tokens.input_ids.shape)} tokens: "
                f"{error}. Try a smaller max_batch_tokens, or another backend."
            ) from error
        encoded_s = time.perf_counter()
        pack_layers(layers, tokens.lengths, batch.token_offsets, codes, spec, calibration)
        packed_s = time.perf_counter()
        num_tokens = int(tokens.lengths.sum())
        return Stats(
            num_windows=batch.texts.size,
            num_tokens=num_tokens,
            num_batches=1,
            num_padding=tokens.input_ids.size - num_tokens,
            encode_s=encoded_s - started_s,
            pack_s=packed_s - encoded_s,
        )


def open_encoder(
    folder: Path,
    manifest: bundle.Manifest,
    calibration: Calibration | None,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Encoder[Any]:
    """Loads a bundle's encoder.

    Args:
        backend: a key of BACKENDS, one of DEVICE_BACKENDS, or "auto": a GPU's if there is one
            and it can be used, else a CPU's. A machine that looks as if it were meant to use its
            GPU, but cannot, gets one warning.
        precision: "auto", or what the encoder must compute in: on a CPU "fp32", "bf16", or "int8",
            which only openvino has, and only of bundles that were built with it; on a GPU the type
            of the bundle's graph, "fp16" or "fp32".
        threads: processor threads, None for all cores.

    Raises BackendError or PlanError for a backend that cannot be had.
    """
    if backend in DEVICE_BACKENDS:
        return _open_on_device(folder, manifest, calibration, backend, precision)
    if backend == "auto" and precision in ("auto", manifest.encoder.precision):
        encoder = _open_on_any_device(folder, manifest, calibration, precision)
        if encoder is not None:
            return encoder
    if backend not in ("auto", *BACKENDS):
        raise BackendError(
            f"backend: got {backend!r}, expected 'auto' or one of "
            f"{sorted([*BACKENDS, *DEVICE_BACKENDS])}."
        )
    name = bundle.graph_file(precision)
    if precision == "int8" and not manifest.has_int8:
        raise BackendError(
            f"precision: got 'int8', but bundle {folder} has no {name}. Build it with the options "
            f"it was built with, and --precision int8: bitheads build --precision int8 "
            f"--encoder {manifest.spec.encoder} --output {folder} --force"
        )
    cache = _open_cache(folder, manifest, name)
    graph, outputs = folder / name, manifest.output_names

    def open_way(way: tuning.Way) -> EncoderSession:
        return open_session(graph, outputs, *way, threads, cache)

    way = backend, precision
    choices, times = tuning.ways(backend, precision), make_cache_folder("times")
    if len(choices) > 1 and times is not None:
        graph_hash, longest = graph_sha256(manifest.artifacts, name), manifest.encoder.max_length
        way, session = tuning.open_fastest(choices, open_way, graph_hash, times, threads, longest)
    else:
        session = open_way(way)
    lanes = None
    files = manifest.artifacts.items()
    graph_bytes = sum(file.bytes for name, file in files if name.startswith(bundle.GRAPH))
    if (threads or count_cores()) > 1 and graph_bytes <= MAX_LANES_GRAPH_BYTES:
        lanes = partial(open_lanes, graph, outputs, session.backend, way[1], threads, cache)
    round_up_to = manifest.encoder.max_length if session.backend == "openvino" else None
    return CpuEncoder(session, manifest.spec, calibration, threads, lanes, round_up_to)


def _open_cache(folder: Path, manifest: bundle.Manifest, graph: str) -> CompiledGraphs | None:
    files, cache = graph_files(manifest.artifacts, graph), make_cache_folder("compiled")
    if cache is None:
        return None

    def is_unchanged() -> bool:
        return all(bundle.Artifact.of(folder / f) == manifest.artifacts[f] for f in files)

    return CompiledGraphs(cache, graph_sha256(manifest.artifacts, graph), is_unchanged)


def _open_on_any_device(
    folder: Path, manifest: bundle.Manifest, calibration: Calibration | None, precision: str
) -> DeviceEncoder | None:
    """The first device backend that works, or None."""
    if find_spec("pycuda") is None:
        if any((folder / PLANS).glob("*.plan")):
            logger.warning(
                "the bundle has plans for a GPU, but pycuda is not installed: running on the CPU. "
                "Type: pip install 'bitheads[gpu]', or pass backend='openvino'."
            )
        return None
    failures = []
    for backend in DEVICE_BACKENDS:
        try:
            return _open_on_device(folder, manifest, calibration, backend, precision)
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
) -> DeviceEncoder:
    from bitheads.engine.device.code import DeviceCode
    from bitheads.engine.device.driver import Device
    from bitheads.engine.device.encoder import DeviceEncoder

    if precision == "int8":
        raise BackendError(
            f"precision: got 'int8' with backend {backend!r}, but only openvino computes in int8. "
            "Pass backend='openvino', or precision='auto'."
        )
    if precision not in ("auto", manifest.encoder.precision):
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
            session = _open_device_session(folder, manifest, backend, device, stream)
            undo.callback(session.close)
            encoder = DeviceEncoder(device, code, session, manifest.spec, calibration, stream)
            undo.pop_all()
        undo_device.pop_all()
    return encoder


@plain_numbers()
def _open_device_session(
    folder: Path, manifest: bundle.Manifest, backend: str, device: Device, stream: Any
) -> DeviceSession:
    session: DeviceSession
    if backend == "tensorrt":
        tensorrt = import_module("bitheads.engine.sessions.tensorrt")
        graph_hash = graph_sha256(manifest.artifacts)
        trt, plan = tensorrt.find_fitting_plan(folder, graph_hash, device)
        session = tensorrt.Session(trt, plan, manifest.output_names, device, stream)
        return session
    if find_spec("onnxruntime") is None:
        raise BackendError(
            f"backend {backend!r} needs ONNX Runtime. Type: pip install 'bitheads[gpu]'"
        )
    session = import_module("bitheads.engine.sessions.onnxruntime_gpu").Session(
        backend,
        folder / bundle.GRAPH,
        manifest.output_names,
        manifest.spec.dim,
        manifest.encoder.max_length,
        device,
        stream,
    )
    return session
