"""Task heads on a GPU: four launches for some dozens of tasks.

    codes ─▶ packed_attention_pool ─▶ grouped_dense: values ─▶ hidden ─▶ output ─▶ logits

Every attention head of every task is one column of the pooling; heads that pool by the mean, the
first or the last token share a column each. The dense stages are rows of a table, so a new task is
new rows: nothing is compiled or planned again. Weights are float16 with one power of two per row,
sums are float32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine import _kernels
from bitheads.engine.device.code import DeviceCode
from bitheads.engine.device.driver import Device
from bitheads.engine.device.head_layout import Arena, Columns, matrices
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec
from bitheads.engine.heads.head import answer, check_features, empty_outputs
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.engine.predictions import Prediction

WORKSPACE_BYTES = 256 << 20
"""Bytes that lie between the stages, at most, whatever the number of texts (one text aside)."""

MIN_BLOCK_TEXTS = 128
"""Texts that fit the workspace, at least: tasks are cut into parts for that, as a part's weights
are read once for all of them."""

MAX_BLOCK_TEXTS = 1024
MAX_BLOCK_CODES = 64 << 20
"""Texts, and bytes of their codes, that go through the heads together."""

MAX_GROUPS = 4
"""Sets of heads that are kept laid out: all of a bundle's, and those asked for by name."""

GROUP = np.dtype(
    [
        ("input", np.uint64),
        ("weights", np.uint64),
        ("scale", np.uint64),
        ("bias", np.uint64),
        ("output", np.uint64),
        ("input_stride", np.int64),
        ("output_stride", np.int64),
        ("n", np.int32),
        ("k", np.int32),
    ]
)
"""bh_dense_group of kernels/include/bitheads/cuda.h."""


class DeviceHeads:
    """Heads of one feature spec on one stream. Its methods want a current context."""

    def __init__(self, device: Device, code: DeviceCode, spec: FeatureSpec, stream: Any) -> None:
        self._device = device
        self._code = code
        self._spec = spec
        self._stream = stream
        self._groups: OrderedDict[tuple[FoldedHead, ...], HeadGroup] = OrderedDict()

    def group(self, heads: Sequence[FoldedHead]) -> HeadGroup:
        """The heads laid out on the device, as they are or from now on."""
        key = tuple(heads)
        group = self._groups.get(key)
        if group is None:
            self._forget(MAX_GROUPS - 1)
            try:
                group = self._lay_out(heads)
            except self._device.cuda.MemoryError:
                self._forget(0)
                group = self._lay_out(heads)
            self._groups[key] = group
        self._groups.move_to_end(key)
        return group

    def _lay_out(self, heads: Sequence[FoldedHead]) -> HeadGroup:
        return HeadGroup(self._device, self._code, self._spec, self._stream, heads)

    def _forget(self, kept: int) -> None:
        """Frees all but so many groups, those used last."""
        while len(self._groups) > kept:
            self._stream.synchronize()
            self._groups.popitem(last=False)[1].close()

    def predict(
        self, features: PackedFeatures, heads: Sequence[FoldedHead]
    ) -> dict[str, Prediction]:
        """See engine.heads.cpu.predict_heads."""
        return answer(features, heads, self._outputs)

    def text_vectors(
        self, features: PackedFeatures, heads: Sequence[FoldedHead]
    ) -> list[NDArray[np.float32]]:
        """See engine.encoder.Encoder."""
        check_features(features, heads)
        return self._outputs(features, heads)

    def _outputs(
        self, features: PackedFeatures, heads: Sequence[FoldedHead]
    ) -> list[NDArray[np.float32]]:
        logits = empty_outputs(heads, len(features))
        if heads and len(features):
            group, cuda = self.group(heads), self._device.cuda
            for block, start in _blocks(features):
                codes = cuda.to_device(block.codes)
                offsets = cuda.to_device(block.offsets)
                answers = np.empty(len(block) * group.num_classes, np.float32)
                try:
                    group.enqueue(int(codes), int(offsets), len(block), answers)
                finally:
                    self._stream.synchronize()
                    codes.free()
                    offsets.free()
                for out, found in zip(logits, group.split(answers, len(block)), strict=True):
                    out[start : start + len(block)] = found
        return logits

    def close(self) -> None:
        """Frees all heads; nothing may be in flight."""
        for group in self._groups.values():
            group.close()
        self._groups.clear()
        self._stream = None


class HeadGroup:
    """Some heads laid out together.

    Attributes:
        num_classes: of all heads; the logits of a text are so many floats.
    """

    def __init__(
        self,
        device: Device,
        code: DeviceCode,
        spec: FeatureSpec,
        stream: Any,
        heads: Sequence[FoldedHead],
    ) -> None:
        """Raises pycuda's MemoryError if the device has no room for them."""
        self._cuda = device.cuda
        self._code = code
        self._stream = stream
        self._memory: list[Any] = []
        self._classes = [head.num_text_outputs for head in heads]
        self.num_classes = sum(self._classes)
        arena = Arena()
        parts = [_Part(part, spec, arena) for part in _cut_by_tasks(heads, spec)]
        largest = max(part.text_bytes for part in parts)
        self._block_texts = max(1, min(MAX_BLOCK_TEXTS, WORKSPACE_BYTES // largest))
        try:
            base = self._upload(arena.content())
            workspace = self._allocate(largest * self._block_texts)
            self._logits = self._allocate(4 * self.num_classes * self._block_texts)
            first_class = 0
            self._parts = []
            for part in parts:
                logits = self._logits + 4 * first_class
                part.place(base, workspace, self._block_texts, logits, self.num_classes)
                tables = [self._upload(stage.groups) for stage in part.stages]
                self._parts.append((part, tables))
                first_class += part.num_classes
        except BaseException:
            self.close()
            raise

    def enqueue(
        self, codes: int, offsets: int, num_texts: int, logits: NDArray[np.float32]
    ) -> None:
        """Enqueues all heads over texts whose codes are on the device, and the copy of the answers.

        Args:
            codes: address of uint8 [tokens, code_bytes].
            offsets: address of int64 [texts + 1].
            logits: float32 [texts * num_classes] at its front, page-locked unless the caller waits.
        """
        for start in range(0, num_texts, self._block_texts):
            texts = min(self._block_texts, num_texts - start)
            for part, tables in self._parts:
                for launch in part.launches(codes, offsets + 8 * start, texts, tables):
                    self._code.launch(launch, self._stream)
            chosen = logits[start * self.num_classes : (start + texts) * self.num_classes]
            self._cuda.memcpy_dtoh_async(chosen, self._logits, self._stream)

    def split(self, logits: NDArray[np.float32], num_texts: int) -> list[NDArray[np.float32]]:
        """What `enqueue` filled, as views [texts, classes], one per head."""
        table = logits[: num_texts * self.num_classes].reshape(num_texts, self.num_classes)
        return np.split(table, np.cumsum(self._classes)[:-1], axis=1)

    def close(self) -> None:
        for memory in self._memory:
            memory.free()
        self._memory.clear()

    def _upload(self, array: NDArray[Any]) -> int:
        address = self._allocate(array.nbytes)
        self._cuda.memcpy_htod(address, array)
        return address

    def _allocate(self, num_bytes: int) -> int:
        self._memory.append(self._cuda.mem_alloc(num_bytes))
        return int(self._memory[-1])


@dataclass
class _Stage:
    """One launch of grouped_dense: its kind, and its rows of the table."""

    kind: str
    groups: NDArray[Any]


class _Part:
    """Heads that share four launches.

    Offsets come first, addresses with `place`: `weights`, `scale` and `bias` are the arena's,
    `input` and `output` count within the workspace, where each stage's results for all texts of a
    block follow those of the stage before.

    Attributes:
        text_bytes: bytes of the workspace per text.
        num_classes: of its heads.
        stages: once placed.
    """

    def __init__(self, heads: Sequence[FoldedHead], spec: FeatureSpec, arena: Arena) -> None:
        self._heads = heads
        self._spec = spec
        self._columns = columns = Columns(heads, spec.dim)
        self._pooled_dim = _kernels.pooled_dim(spec.dim)
        self.num_classes = sum(head.num_text_outputs for head in heads)
        attending = sum(head.query is not None for head in heads)
        # Items of a text at each stage, all float16.
        self._widths = (
            len(columns.queries) * self._pooled_dim,
            attending * spec.dim,
            sum(head.dense_bias.size for head in heads),
        )
        self.text_bytes = 2 * sum(self._widths)
        fragments, scale = _kernels.lay_out_queries(columns.queries, spec.quantization.value)
        bias = columns.end_bias.tobytes()
        self._queries = [arena.add(content) for content in (fragments, scale, bias)]
        self._weights = [[self._add(arena, *of) for of in matrices(head)] for head in heads]
        self.stages: list[_Stage] = []

    @staticmethod
    def _add(
        arena: Arena, weights: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> tuple[int, int, int]:
        """Offsets of laid-out weights, scale and bias, -1 for none."""
        halves, scale = _kernels.lay_out_dense(np.ascontiguousarray(weights))
        bias_offset = -1 if bias is None else arena.add(bias.tobytes())
        return arena.add(halves), arena.add(scale), bias_offset

    def place(self, base: int, workspace: int, texts: int, logits: int, num_classes: int) -> None:
        """Makes the tables.

        Args:
            base: address of the arena. workspace: of texts * text_bytes.
            logits: of the part's first class; a text's logits are num_classes floats.
        """
        dim = self._spec.dim
        self._queries = [base + offset for offset in self._queries]
        pooled = self._pooled = workspace
        values = pooled + 2 * texts * self._widths[0]
        hidden = values + 2 * texts * self._widths[1]
        rows: dict[str, list[tuple[int, ...]]] = {"value": [], "hidden": [], "output": []}

        def add(
            kind: str,
            offsets: tuple[int, int, int],
            source: tuple[int, int],
            target: tuple[int, int],
            n: int,
            k: int,
        ) -> None:
            weights, scale, bias = (0 if o < 0 else base + o for o in offsets)
            (source_at, source_stride), (target_at, target_stride) = source, target
            rows[kind].append(
                (source_at, weights, scale, bias, target_at, source_stride, target_stride, n, k)
            )

        for head, column, weights in zip(
            self._heads, self._columns.first, self._weights, strict=True
        ):
            *value, dense, output = weights
            source = pooled + 2 * column * self._pooled_dim, self._widths[0]
            size = dim // max(1, len(value))  # of an attention head
            for i, offsets in enumerate(value):
                column_at = source[0] + 2 * i * self._pooled_dim
                target = values + 2 * i * size, self._widths[1]
                add("value", offsets, (column_at, source[1]), target, size, dim)
            if value:
                source = values, self._widths[1]
                values += 2 * dim
            inner, classes = head.dense_bias.size, head.num_text_outputs
            between = hidden, self._widths[2]
            add("hidden", dense, source, between, inner, dim)
            add("output", output, between, (logits, num_classes), classes, inner)
            hidden += 2 * inner
            logits += 4 * classes
        self.stages = [_Stage(kind, np.array(made, GROUP)) for kind, made in rows.items() if made]

    def launches(
        self, codes: int, offsets: int, texts: int, tables: Sequence[int]
    ) -> Iterator[_kernels.Launch]:
        spec = self._spec
        queries, scale, bias = self._queries
        yield _kernels.plan_attention_pool(
            codes,
            offsets,
            texts,
            spec.quantization.value,
            spec.dim,
            len(self._columns.queries),
            queries,
            scale,
            bias,
            self._pooled,
        )
        for stage, table in zip(self.stages, tables, strict=True):
            largest_n = int(stage.groups["n"].max())
            yield _kernels.plan_grouped_dense(
                table, len(stage.groups), largest_n, texts, stage.kind
            )


def _cut_by_tasks(heads: Sequence[FoldedHead], spec: FeatureSpec) -> list[list[FoldedHead]]:
    """Runs of heads of which MIN_BLOCK_TEXTS texts fit the workspace."""
    pooled_dim = _kernels.pooled_dim(spec.dim)
    parts: list[list[FoldedHead]] = [[]]
    part_bytes = 0
    for head in heads:
        columns = 1 if head.query is None else len(head.query)
        values = 0 if head.query is None else spec.dim
        head_bytes = 2 * (columns * pooled_dim + values + head.dense_bias.size)
        if parts[-1] and part_bytes + head_bytes > WORKSPACE_BYTES // MIN_BLOCK_TEXTS:
            parts.append([])
            part_bytes = 0
        parts[-1].append(head)
        part_bytes += head_bytes
    return parts


def _blocks(features: PackedFeatures) -> list[tuple[PackedFeatures, int]]:
    """Runs of texts that go through the heads together, and where each starts."""
    blocks = []
    start = 0
    tokens = MAX_BLOCK_CODES // features.spec.code_bytes
    while start < len(features):
        last = int(np.searchsorted(features.offsets, features.offsets[start] + tokens, "right")) - 1
        stop = min(max(start + 1, last), start + MAX_BLOCK_TEXTS, len(features))
        blocks.append((features[start:stop], start))
        start = stop
    return blocks
