"""Batched task heads over packed features: all tasks in one call of the native kernels.

A head is laid out once, as the fixed-point numbers that the kernels read; what they compute, to the
bit, is in `kernels/SPEC.md`. Answers depend on nothing but the text and the head: not on the batch,
the other heads, the SIMD level or the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.errors import HeadError, InputError
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec, PositionPooling, Quantization
from bitheads.engine.heads import float_heads
from bitheads.engine.heads.head import answer, check_features, empty_outputs
from bitheads.engine.heads.head_file import FoldedHead, PairHalf
from bitheads.engine.kinds import Decision
from bitheads.engine.predictions import Prediction
from bitheads.engine.process.cores import count_cores
from bitheads.engine.process.lifetime import Lifetime

ALIGNMENT = 64
BLOCK_TEXTS = 60
"""Texts that the kernels take through a head together, so that its weights are read once."""

BLOCK_PAIRS = 240
"""Pairs whose codes are made before they are read."""

MIN_SHARED_BYTES = 16 << 20
"""Bytes of weights, counted once per eight texts, below which waking another thread costs what it
saves."""


@dataclass(frozen=True, eq=False)
class LaidOutHead:
    """A head as the kernels read it.

    Attributes:
        block: uint8 [bytes], what `bh_lay_out_head` wrote, at a multiple of 64 bytes.
        pair_block: the same of the half that reads pairs; None unless it is of the form two_texts.
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
    num_text_outputs: int
    block: NDArray[np.uint8]
    pair_block: NDArray[np.uint8] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in memory."""
        return self.block.nbytes + (0 if self.pair_block is None else self.pair_block.nbytes)


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
        head.num_text_outputs,
        _block_of(head, head.task, head.spec.quantization),
        lay_out_pair_half(head),
    )


def lay_out_pair_half(head: FoldedHead) -> NDArray[np.uint8] | None:
    """The half of a head that reads pairs, see LaidOutHead. Raises as `lay_out`."""
    return None if head.pair is None else _block_of(head.pair, head.task, Quantization.UINT8)


def _block_of(
    head: FoldedHead | PairHalf, task: str, quantization: Quantization
) -> NDArray[np.uint8]:
    pooling = head.position_pooling.value
    query = None if head.query is None else _contiguous(head.query)
    value = None if head.value is None else _contiguous(head.value)
    inner, dim = head.dense.shape
    attention_heads = 0 if query is None else len(query)
    sizes = (dim, attention_heads, inner, len(head.output))
    block = aligned_bytes(_kernels.head_bytes(quantization.value, pooling, *sizes))
    try:
        _kernels.lay_out_head(
            block,
            quantization.value,
            pooling,
            query,
            value,
            _contiguous(head.dense),
            _contiguous(head.dense_bias),
            _contiguous(head.output),
            _contiguous(head.output_bias),
        )
    except ValueError as error:
        raise HeadError(f"head {task!r}: {error}") from error
    return block


def _contiguous(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of a file's arrays, some are transposed or unaligned."""
    return np.require(array, np.float32, ["C", "A"])


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
        self._pair_blocks: WeakKeyDictionary[FoldedHead, NDArray[np.uint8]] = WeakKeyDictionary()

    def __enter__(self) -> HeadThreads:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for calls that run and ends the threads; later calls raise ClosedError."""
        if self._lifetime.end():
            self._pool.shutdown()
            self._workspaces.clear()
            self._pair_blocks.clear()

    def predict(self, features: PackedFeatures, heads: Sequence[CpuHead]) -> dict[str, Prediction]:
        """See `predict_heads`. May be called from several threads at a time.

        Raises ClosedError after `close`, ForkedError in another process.
        """
        with self._lifetime:
            return answer(features, heads, self._outputs)

    def text_vectors(
        self, features: PackedFeatures, heads: Sequence[CpuHead]
    ) -> list[NDArray[np.float32]]:
        """What heads of the form two_texts make of each text, float32 [texts, size] of each.

        Raises as `predict`.
        """
        with self._lifetime:
            check_features(features, heads)
            return self._outputs(features, heads)

    def pair_outputs(
        self,
        vectors: Sequence[NDArray[np.float32]],
        pairs: NDArray[np.int64],
        heads: Sequence[CpuHead],
    ) -> list[NDArray[np.float32]]:
        """What heads of the form two_texts make of pairs of vectors, float32 [pairs, outputs].

        Args:
            vectors: of each head, float32 [texts, size], as `text_vectors` gives them.
            pairs: int64 [pairs, 2], rows of the vectors.

        Raises ClosedError after `close`, ForkedError in another process, HeadError as `lay_out`.
        """
        with self._lifetime:
            outputs = [np.empty((len(pairs), head.num_outputs), np.float32) for head in heads]
            blocks = [self.pair_block(head) for head in heads]
            is_small = _is_small(sum(block.nbytes for block in blocks), len(pairs))
            parts = _parts(len(pairs), len(heads), 1 if is_small else self._threads)

            def run(part: _Part) -> None:
                some, chosen = part
                for of_head in zip(vectors[chosen], blocks[chosen], outputs[chosen], strict=True):
                    self._call_pairs(pairs, some, *of_head)

            self._run_parts(run, parts)
            return outputs

    def pair_block(self, head: CpuHead) -> NDArray[np.uint8]:
        """What the kernels read of a head's half that reads pairs; laid out once.

        Raises HeadError as `lay_out`.
        """
        if isinstance(head, LaidOutHead):
            block = head.pair_block
        else:
            block = self._pair_blocks.get(head)
            if block is None and (block := lay_out_pair_half(head)) is not None:
                self._pair_blocks[head] = block
        assert block is not None, "asked of heads of the form two_texts"
        return block

    def _call_pairs(
        self,
        pairs: NDArray[np.int64],
        some: slice,
        vectors: NDArray[np.float32],
        block: NDArray[np.uint8],
        outputs: NDArray[np.float32],
    ) -> None:
        """One head on some of the pairs, in blocks whose codes stay in the cache."""
        dim = 4 * vectors.shape[1] + 2
        for start in range(some.start, some.stop, BLOCK_PAIRS):
            chosen = slice(start, min(start + BLOCK_PAIRS, some.stop))
            count = chosen.stop - start
            codes = np.empty((count, dim), np.uint8)
            _kernels.combine_texts(vectors, np.ascontiguousarray(pairs[chosen]), codes)
            inputs = (codes, np.arange(count + 1), dim, Quantization.UINT8.value, [block])
            self._call(inputs, [outputs[chosen]])

    def _outputs(
        self, features: PackedFeatures, heads: Sequence[CpuHead]
    ) -> list[NDArray[np.float32]]:
        if features.spec.quantization is Quantization.FLOAT16:
            folded = [head for head in heads if isinstance(head, FoldedHead)]
            return float_heads.predict_heads(features, folded)
        laid_out = [lay_out(head) if isinstance(head, FoldedHead) else head for head in heads]
        native = [head for head in laid_out if isinstance(head, LaidOutHead)]
        _check_lengths(features)
        logits = empty_outputs(heads, len(features))
        self._run(features, native, logits)
        return logits

    def _run(
        self,
        features: PackedFeatures,
        heads: Sequence[LaidOutHead],
        logits: Sequence[NDArray[np.float32]],
    ) -> None:
        is_small = _is_small(sum(head.nbytes for head in heads), len(features))
        parts = _parts(len(features), len(heads), 1 if is_small else self._threads)
        spec = features.spec

        def run(part: _Part) -> None:
            texts, chosen = part
            offsets = features.offsets[texts.start : texts.stop + 1]
            blocks = [head.block for head in heads[chosen]]
            inputs = (features.codes, offsets, spec.dim, spec.quantization.value, blocks)
            self._call(inputs, [answer[texts] for answer in logits[chosen]])

        self._run_parts(run, parts)

    def _run_parts(self, run: Callable[[_Part], None], parts: Sequence[_Part]) -> None:
        if len(parts) < 2:
            for part in parts:
                run(part)
        else:
            list(self._pool.map(run, parts))  # a list, or errors would pass unseen

    def _call(self, inputs: _Inputs, logits: Sequence[NDArray[np.float32]]) -> None:
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

_Inputs: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64], int, str, list[NDArray[np.uint8]]]
"""What the kernels read: codes, offsets, dim, quantization and heads."""


def _is_small(weight_bytes: int, num_texts: int) -> bool:
    """Whether another thread would gain nothing."""
    return weight_bytes * max(1, num_texts // 8) < MIN_SHARED_BYTES


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
