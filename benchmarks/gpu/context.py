"""What measurements share: a bundle, the texts, how often to repeat, an opened GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.gpu.texts import TextMaker
from benchmarks.inputs.texts import demo_texts
from bitheads.engine import bundle
from bitheads.engine.bundle import Manifest
from bitheads.engine.predictions import Predictions
from bitheads.engine.text_batches import open_tokenizer
from bitheads.engine.texts.tokenize import TextTokenizer
from bitheads.engine.types import Text
from bitheads.export.texts import read_texts


class Predictor(Protocol):
    """What is compared: the engine on some backend, or a peer that answers like it."""

    def predict(self, texts: list[Text], *, max_batch_tokens: int | None = None) -> Predictions:
        """Every head's answer for every text."""

    def close(self) -> None:
        """Frees what it holds."""


@dataclass(frozen=True)
class Repeats:
    """How often what is measured runs."""

    warm_up: int
    latency: int
    throughput: int
    kernel: int
    texts: int


FULL = Repeats(warm_up=20, latency=300, throughput=5, kernel=50, texts=4000)
QUICK = Repeats(warm_up=2, latency=20, throughput=2, kernel=5, texts=400)


@dataclass(frozen=True)
class Bench:
    """One encoder to measure.

    Attributes:
        bundle: its folder.
        encoder: the source model, as `bitheads build --encoder` takes it; for torch.
    """

    bundle: Path
    encoder: str
    repeats: Repeats = FULL

    @cached_property
    def manifest(self) -> Manifest:
        return bundle.read_manifest(self.bundle)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return open_tokenizer(self.bundle, self.manifest)

    @cached_property
    def maker(self) -> TextMaker:
        return TextMaker(self.tokenizer, self.manifest.encoder.max_length)

    @cached_property
    def shipped_texts(self) -> list[Text]:
        """The demo's texts, of pairs the first, and the sentences that a build is compared on."""
        singles = (text if isinstance(text, str) else text[0] for text in demo_texts())
        return [*dict.fromkeys([*singles, *read_texts(None)])]


class Gpu:
    """An opened GPU, its device code, and a stream that all timing happens on."""

    def __init__(self, device: Any, code: Any, stream: Any) -> None:
        self.device = device
        self.code = code
        self.stream = stream

    def time_s(self, enqueue: Any, repeats: int, warm_up: int = 3) -> float:
        """Seconds of one `enqueue()` on the stream, the mean of `repeats` in a row.

        Measured by events, so that what the host does between them counts only where the GPU
        has nothing left to do. In a current context.
        """
        cuda = self.device.cuda
        start, end = cuda.Event(), cuda.Event()
        for _ in range(warm_up):
            enqueue()
        self.stream.synchronize()
        start.record(self.stream)
        for _ in range(repeats):
            enqueue()
        end.record(self.stream)
        end.synchronize()
        return 1e-3 * float(end.time_since(start)) / repeats

    @contextmanager
    def memory(self, *num_bytes: int) -> Iterator[list[Any]]:
        """Device memory, freed at the end whatever happens. In a current context."""
        held: list[Any] = []
        try:
            for size in num_bytes:
                held.append(self.device.cuda.mem_alloc(max(1, size)))
            yield held
        finally:
            self.stream.synchronize()
            for allocation in held:
                allocation.free()


@contextmanager
def open_gpu() -> Iterator[Gpu]:
    """Raises BackendError without a GPU, a driver, pycuda or device code."""
    from bitheads.engine.device.code import DeviceCode
    from bitheads.engine.device.driver import Device

    device = Device()
    try:
        with device.current("making a stream"):
            gpu = Gpu(device, DeviceCode(device), device.cuda.Stream())
        try:
            yield gpu
        finally:
            gpu.code = gpu.stream = None  # before their context goes
    finally:
        device.close()


def labels(predictions: Predictions) -> dict[str, Any]:
    """Task -> index of the top label of each text."""
    return {task: np.argmax(answer.logits, axis=1) for task, answer in predictions.items()}
