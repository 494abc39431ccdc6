"""The native kernel as the benchmark calls it: heads laid out, one call on some texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine import _kernels
from engine.head_file import FoldedHead
from engine.types import PackedFeatures

ALIGNMENT = 64
PEAK_SAMPLE_S = 0.02
FIRST_PEAK_MULTIPLY_ADDS = 1_000_000


@dataclass(frozen=True, eq=False)
class LaidOutHead:
    """A head in the kernels' order.

    Attributes:
        block: uint8 [bytes], at a multiple of 64 bytes.
    """

    block: NDArray[np.uint8]
    classes: int


def fastest_level() -> str:
    """Of those that run here, whatever level the environment asks the engine to use."""
    return _kernels.supported_levels()[-1]


def head_bytes(head: FoldedHead) -> int:
    """What a head takes once it is laid out."""
    attention_heads = 1 if head.query is None else len(head.query)
    return _kernels.head_bytes(
        head.spec.quantization.value,
        head.position_pooling.value,
        head.spec.dim,
        attention_heads,
        head.dense_bias.size,
        len(head.labels),
    )


def lay_out(head: FoldedHead) -> LaidOutHead:
    """A copy of the head's weights in the kernels' order."""
    block = _aligned(head_bytes(head))
    _kernels.lay_out_head(
        block,
        head.spec.quantization.value,
        head.position_pooling.value,
        head.query,
        head.value,
        head.dense,
        head.dense_bias,
        head.output,
        head.output_bias,
    )
    return LaidOutHead(block, len(head.labels))


class NativeCall:
    """All heads on all texts, at one level, in one thread; made once, called often.

    Attributes:
        logits: float32 [texts, classes] a head, written by each call.
    """

    def __init__(self, features: PackedFeatures, heads: Sequence[LaidOutHead], level: str) -> None:
        self._features, self._level = features, level
        self._blocks = [head.block for head in heads]
        self.logits = [np.empty((len(features), head.classes), np.float32) for head in heads]
        spec = features.spec
        self._workspace = _aligned(
            _kernels.predict_heads_workspace(
                features.codes, features.offsets, spec.dim, spec.quantization.value, self._blocks
            )
        )

    @property
    def workspace_bytes(self) -> int:
        return self._workspace.nbytes

    def __call__(self) -> None:
        features, spec = self._features, self._features.spec
        _kernels.predict_heads(
            features.codes,
            features.offsets,
            spec.dim,
            spec.quantization.value,
            self._blocks,
            self.logits,
            self._workspace,
            self._level,
        )


class PeakCall:
    """Integer dot products from registers, as many as take a sample's time.

    Attributes:
        multiply_adds: 16-bit multiply-adds of a call.
    """

    def __init__(self, level: str) -> None:
        self._level, self._asked = level, FIRST_PEAK_MULTIPLY_ADDS
        started_s = time.perf_counter()
        done = _kernels.run_dot_products(level, self._asked)
        seconds = time.perf_counter() - started_s
        self._asked = max(self._asked, int(done * PEAK_SAMPLE_S / seconds))
        self.multiply_adds = _kernels.run_dot_products(level, self._asked)

    def __call__(self) -> None:
        _kernels.run_dot_products(self._level, self._asked)


def _aligned(num_bytes: int) -> NDArray[np.uint8]:
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + num_bytes]
