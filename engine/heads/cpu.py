"""Batched task heads over packed features: all tasks in one call of the native kernels.

A head is laid out once, as the fixed-point numbers that the kernels read; what they compute, to the
bit, is in `kernels/SPEC.md`. Answers depend on nothing but the text and the head: not on the batch,
the other heads, the SIMD level or the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec, PositionPooling, Quantization
from bitheads.engine.heads import float_heads
from bitheads.engine.heads.head import check_features, empty_outputs, predictions_of
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Prediction
from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.lifetime import Lifetime
from bitheads.engine.texts.forms import leave_out_misfits

ALIGNMENT = 64
BLOCK_TEXTS = 60
"""Texts that the kernels take through a head together, so that its weights are read once."""

MIN_SHARED_BYTES = 16 << 20
"""Bytes of weights, counted once per eight texts, below which waking another thread costs what it
saves."""


@dataclass(frozen=True, eq=False)
class LaidOutHead:
    """A head as the kernels read it.

    Attributes:
        block: uint8 [bytes], what `bh_lay_out_head` wrote, at a multiple of 64 bytes.
        task and all else: see FoldedHead.
    """

    task: str
    labels: tuple[str, ...]
    form: str
    position_pooling: PositionPooling
    spec: FeatureSpec
    metrics: Mapping[str, float]
    kind: str
    decision: Decision
    num_outputs: int
    block: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in memory."""
        return self.block.nbytes


MAX_FLOAT16_ROW = 1e15
"""Sum of a row's magnitudes up to which no sum over float16 codes leaves float32."""

CpuHead: TypeAlias = LaidOutHead | FoldedHead
"""A head for signs or uint8, and one for float16."""


def load_head(head: FoldedHead) -> CpuHead:
    """The head as a processor runs it. Raises as `lay_out`, for float16 from MAX_FLOAT16_ROW on."""
    if head.spec.quantization is not Quantization.FLOAT16:
        return lay_out(head)
    for name, array in head.tensors.items():
        rows = np.abs(array, dtype=np.float64).reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
        if rows.size and rows.sum(axis=1).max() > MAX_FLOAT16_ROW:
            raise HeadError(
                f"head {head.task!r}: a row of {name} is more than {MAX_FLOAT16_ROW:g} in all. "
                "Train it again."
            )
    return head


def lay_out(head: FoldedHead) -> LaidOutHead:
    """A head for signs or uint8 in half the bytes of its float32 weights.

    Raises HeadError if a row of its weights sums up to more than 1e30.
    """
    quantization, pooling = head.spec.quantization.value, head.position_pooling.value
    attention_heads = 0 if head.query is None else len(head.query)
    num_bytes = _kernels.head_bytes(
        quantization,
        pooling,
        head.spec.dim,
        attention_heads,
        head.dense_bias.size,
        head.num_outputs,
    )
    block = aligned_bytes(num_bytes)
    # Of a file's arrays, some are transposed or unaligned.
    tensors = {
        name: np.require(array, np.float32, ["C", "A"]) for name, array in head.tensors.items()
    }
    try:
        _kernels.lay_out_head(
            block,
            quantization,
            pooling,
            tensors.get("query"),
            tensors.get("value"),
            tensors["dense"],
            tensors["dense_bias"],
            tensors["output"],
            tensors["output_bias"],
        )
    except ValueError as error:
        raise HeadError(f"head {head.task!r}: {error}") from error
    return LaidOutHead(
        head.task,
        head.labels,
        head.form,
        head.position_pooling,
        head.spec,
        head.metrics,
        head.kind,
        head.decision,
        head.num_outputs,
        block,
    )


def _check_lengths(features: PackedFeatures) -> None:
    longest = int(features.num_tokens.max(initial=0))
    most = _kernels.MAX_TEXT_TOKENS
    if longest > most:
        raise InputError(
            f"features: got a text of {longest} tokens, expected at most {most}. Encode it in "
            "parts."
        )


def predict_heads(features: PackedFeatures, heads: Sequence[CpuHead]) -> dict[str, Prediction]:
    """Every head's logits for every text, in the order of the texts, on this thread.

    They are NaN for texts that are not of the head's form, see engine.texts.forms.

    Raises as `check_features`, and InputError for a text of more than 16,384 tokens.
    """
    with HeadThreads(1) as threads:
        return threads.predict(features, heads)


class HeadThreads:
    """Threads that run heads, and their workspaces: megabytes per thread, kept between calls."""

    def __init__(self, threads: int | None = None) -> None:
        """threads: None for all cores."""
        self._lifetime = Lifetime("these threads of heads")
        self._threads = threads or count_cores()
        self._pool = ThreadPoolExecutor(self._threads, "bitheads-heads")  # starts none yet
        self._workspaces: list[NDArray[np.uint8]] = []

    def __enter__(self) -> HeadThreads:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for calls that run and ends the threads; later calls raise ClosedError."""
        if self._lifetime.end():
            self._pool.shutdown()
            self._workspaces.clear()

    def predict(self, features: PackedFeatures, heads: Sequence[CpuHead]) -> dict[str, Prediction]:
        """See `predict_heads`. May be called from several threads at a time.

        Raises ClosedError after `close`, ForkedError in another process.
        """
        with self._lifetime:
            return self._predict(features, heads)

    def _predict(self, features: PackedFeatures, heads: Sequence[CpuHead]) -> dict[str, Prediction]:
        check_features(features, heads)
        if features.spec.quantization is Quantization.FLOAT16:
            folded = [head for head in heads if isinstance(head, FoldedHead)]
            logits = float_heads.predict_heads(features, folded)
        else:
            laid_out = [lay_out(head) if isinstance(head, FoldedHead) else head for head in heads]
            native = [head for head in laid_out if isinstance(head, LaidOutHead)]
            _check_lengths(features)
            logits = empty_outputs(heads, len(features))
            self._run(features, native, logits)
        leave_out_misfits(heads, features.pairs, logits)
        return predictions_of(heads, logits)

    def _run(
        self,
        features: PackedFeatures,
        heads: Sequence[LaidOutHead],
        logits: Sequence[NDArray[np.float32]],
    ) -> None:
        weights = sum(head.nbytes for head in heads)
        is_small = weights * max(1, len(features) // 8) < MIN_SHARED_BYTES
        parts = _parts(len(features), len(heads), 1 if is_small else self._threads)

        def run(part: _Part) -> None:
            texts, chosen = part
            self._call(features, texts, heads[chosen], [answer[texts] for answer in logits[chosen]])

        if len(parts) < 2:
            for part in parts:
                run(part)
        else:
            list(self._pool.map(run, parts))  # a list, or errors would pass unseen

    def _call(
        self,
        features: PackedFeatures,
        texts: slice,
        heads: Sequence[LaidOutHead],
        logits: Sequence[NDArray[np.float32]],
    ) -> None:
        spec = features.spec
        blocks = [head.block for head in heads]
        offsets = features.offsets[texts.start : texts.stop + 1]
        inputs = (features.codes, offsets, spec.dim, spec.quantization.value, blocks)
        workspace = self._borrow(_kernels.predict_heads_workspace(*inputs))
        _kernels.predict_heads(*inputs, logits, workspace)
        self._workspaces.append(workspace)

    def _borrow(self, num_bytes: int) -> NDArray[np.uint8]:
        """One that is large enough; a list's pop and append need no lock."""
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            return aligned_bytes(num_bytes)
        return workspace if workspace.nbytes >= num_bytes else aligned_bytes(num_bytes)


_Part: TypeAlias = tuple[slice, slice]
"""Texts and heads of one call."""


def _parts(num_texts: int, num_heads: int, threads: int) -> list[_Part]:
    """Calls that together make all texts by all heads.

    Texts go to the threads in whole blocks, several per thread, so that no thread waits for a
    slower one. Where texts are too few, heads do: their weights are then read once, not once per
    thread.
    """
    if num_texts == 0 or num_heads == 0:
        return []
    all_texts, all_heads = slice(0, num_texts), slice(0, num_heads)
    if num_texts >= BLOCK_TEXTS * threads:
        size = max(1, num_texts // (4 * threads * BLOCK_TEXTS)) * BLOCK_TEXTS
        starts = range(0, num_texts, size)
        return [(slice(i, min(i + size, num_texts)), all_heads) for i in starts]
    if num_heads >= threads:
        return [(all_texts, part) for part in _shares(num_heads, threads)]
    return [(part, all_heads) for part in _shares(num_texts, min(num_texts, threads))]


def _shares(items: int, count: int) -> list[slice]:
    bounds = [items * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def aligned_bytes(num_bytes: int) -> NDArray[np.uint8]:
    """uint8 [num_bytes] that starts where the kernels want their memory; not initialized."""
    room = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + num_bytes]
