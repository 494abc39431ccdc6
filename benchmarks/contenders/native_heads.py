"""The native kernel as benchmarks call it: at a level, in one thread, into the same memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bitheads.engine import _kernels
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.heads.cpu import LaidOutHead, aligned_bytes
from bitheads.engine.heads.head import empty_outputs

PEAK_SAMPLE_S = 0.02
FIRST_PEAK_MULTIPLY_ADDS = 1_000_000


def fastest_level() -> str:
    """The fastest level that runs here, whatever the environment asks the engine to use."""
    return _kernels.supported_levels()[-1]


class NativeCall:
    """All heads on all texts, at one level, in one thread; made once, called often.

    Attributes:
        logits: float32 [texts, classes] per head, written by each call.
    """

    def __init__(self, features: PackedFeatures, heads: Sequence[LaidOutHead], level: str) -> None:
        self._features, self._level = features, level
        self._blocks = [head.block for head in heads]
        self.logits = empty_outputs(heads, len(features))
        spec = features.spec
        self._workspace = aligned_bytes(
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
