"""Task heads on a GPU: four launches for any number of tasks.

    codes ─▶ packed_attention_pool ─▶ grouped_dense: values ─▶ hidden ─▶ output ─▶ logits

Every attention head of every task is one column of the pooling; heads that pool by the mean or the
first token share a column each. The dense stages are rows of a table, so a new task is new rows:
nothing is compiled or planned again. Weights are float16 with a power of two a row, sums float32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import _kernels
from engine.device.code import DeviceCode
from engine.device.driver import Device
from engine.head_file import FoldedHead
from engine.heads import check_features
from engine.types import FeatureSpec, PackedFeatures, PositionPooling, Prediction

WORKSPACE_BYTES = 256 << 20
"""Bound on what lies between the stages, whatever the number of texts (one text aside)."""

MAX_BLOCK_TEXTS = 1024
MAX_BLOCK_CODES = 64 << 20
"""Texts, and bytes of their codes, that go through the heads together."""

MAX_GROUPS = 4
"""Sets of heads that are kept laid out: all of a bundle's, and those asked for by name."""

FIRST_TOKEN_ONLY = 1e30
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
            if len(self._groups) >= MAX_GROUPS:
                self._stream.synchronize()
                self._groups.popitem(last=False)[1].close()
            group = HeadGroup(self._device, self._code, self._spec, self._stream, heads)
            self._groups[key] = group
        self._groups.move_to_end(key)
        return group

    def predict(
        self, features: PackedFeatures, heads: Sequence[FoldedHead]
    ) -> dict[str, Prediction]:
        """See engine.heads.predict_heads."""
        check_features(features, heads)
        logits = [np.empty((len(features), len(head.labels)), np.float32) for head in heads]
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
                for out, answer in zip(logits, group.split(answers, len(block)), strict=True):
                    out[start : start + len(block)] = answer
        return {h.task: Prediction(h.labels, out) for h, out in zip(heads, logits, strict=True)}

    def close(self) -> None:
        """Frees all heads; nothing may be in flight."""
        for group in self._groups.values():
            group.close()
        self._groups.clear()


@dataclass(frozen=True)
class _Stage:
    """One launch of grouped_dense: its kind and its rows of the table."""

    kind: str
    groups: NDArray[Any]

    @property
    def largest_n(self) -> int:
        return int(self.groups["n"].max())


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
        self._cuda = device.cuda
        self._code = code
        self._spec = spec
        self._stream = stream
        self._memory: list[Any] = []
        self._classes = [len(head.labels) for head in heads]
        self.num_classes = sum(self._classes)
        try:
            self._lay_out(heads)
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
            self._launch(codes, offsets + 8 * start, texts)
            chosen = logits[start * self.num_classes : (start + texts) * self.num_classes]
            self._cuda.memcpy_dtoh_async(chosen, self._logits, self._stream)

    def split(self, logits: NDArray[np.float32], num_texts: int) -> list[NDArray[np.float32]]:
        """What `enqueue` filled, as views [texts, classes], a head each."""
        table = logits[: num_texts * self.num_classes].reshape(num_texts, self.num_classes)
        return np.split(table, np.cumsum(self._classes)[:-1], axis=1)

    def close(self) -> None:
        for memory in self._memory:
            memory.free()
        self._memory.clear()

    def _launch(self, codes: int, offsets: int, texts: int) -> None:
        spec = self._spec
        launches = [
            _kernels.plan_attention_pool(
                codes,
                offsets,
                texts,
                spec.quantization.value,
                spec.dim,
                self._num_columns,
                self._queries,
                self._column_scale,
                self._first_token_bias,
                self._pooled,
            )
        ]
        launches += [
            _kernels.plan_grouped_dense(
                table, len(stage.groups), stage.largest_n, texts, stage.kind
            )
            for stage, table in self._stages
        ]
        for launch in launches:
            self._code.launch(launch, self._stream)

    def _lay_out(self, heads: Sequence[FoldedHead]) -> None:
        """Uploads queries, weights and tables, and allocates what lies between the stages."""
        dim = self._spec.dim
        columns = _Columns(heads, dim)
        self._num_columns = len(columns.queries)
        fragments, scale = _kernels.lay_out_queries(columns.queries, self._spec.quantization.value)
        self._queries = self._upload(fragments)
        self._column_scale = self._upload(scale)
        self._first_token_bias = self._upload(columns.first_token_bias)

        pooled_dim = _kernels.pooled_dim(dim)
        attending = [head for head in heads if head.query is not None]
        widths = {
            "pooled": (2, self._num_columns * pooled_dim),
            "values": (2, len(attending) * dim),
            "hidden": (2, sum(head.dense_bias.size for head in heads)),
            "logits": (4, self.num_classes),
        }
        text_bytes = sum(item * width for item, width in widths.values())
        self._block_texts = max(1, min(MAX_BLOCK_TEXTS, WORKSPACE_BYTES // text_bytes))
        self._pooled, values, hidden, self._logits = (
            self._allocate(item * max(1, width) * self._block_texts)
            for item, width in widths.values()
        )

        value_rows, hidden_rows, output_rows = [], [], []
        next_value = next_hidden = next_class = 0
        for head, column in zip(heads, columns.first, strict=True):
            source = self._pooled + 2 * column * pooled_dim
            source_stride = widths["pooled"][1]
            if head.query is not None and head.value is not None:
                size = dim // len(head.query)  # of an attention head
                for i in range(len(head.query)):
                    weights = self._upload_weights(head.value[i * size : (i + 1) * size], None)
                    output = values + 2 * (next_value + i * size)
                    value_rows.append(
                        (
                            source + 2 * i * pooled_dim,
                            *weights,
                            output,
                            source_stride,
                            widths["values"][1],
                            size,
                            dim,
                        )
                    )
                source, source_stride = values + 2 * next_value, widths["values"][1]
                next_value += dim
            inner, classes = head.dense_bias.size, len(head.labels)
            hidden_rows.append(
                (
                    source,
                    *self._upload_weights(head.dense, head.dense_bias),
                    hidden + 2 * next_hidden,
                    source_stride,
                    widths["hidden"][1],
                    inner,
                    dim,
                )
            )
            output_rows.append(
                (
                    hidden + 2 * next_hidden,
                    *self._upload_weights(head.output, head.output_bias),
                    self._logits + 4 * next_class,
                    widths["hidden"][1],
                    self.num_classes,
                    classes,
                    inner,
                )
            )
            next_hidden += inner
            next_class += classes
        self._stages = []
        for kind, rows in (
            ("value", value_rows),
            ("hidden", hidden_rows),
            ("output", output_rows),
        ):
            if rows:
                table = np.array(rows, GROUP)
                self._stages.append((_Stage(kind, table), self._upload(table)))

    def _upload_weights(
        self, weights: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> tuple[int, int, int]:
        """Addresses of the laid-out weights, their scale, and the bias (0 if there is none)."""
        halves, scale = _kernels.lay_out_dense(np.ascontiguousarray(weights))
        return (
            self._upload(halves),
            self._upload(scale),
            0 if bias is None else self._upload(bias),
        )

    def _upload(self, content: bytes | NDArray[Any]) -> int:
        array = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
        address = self._allocate(array.nbytes)
        self._cuda.memcpy_htod(address, np.ascontiguousarray(array))
        return address

    def _allocate(self, num_bytes: int) -> int:
        self._memory.append(self._cuda.mem_alloc(num_bytes))
        return int(self._memory[-1])


class _Columns:
    """The queries of all heads, one below the other.

    Attributes:
        queries: float32 [columns, dim].
        first_token_bias: float32 [columns].
        first: the first column of each head.
    """

    def __init__(self, heads: Sequence[FoldedHead], dim: int) -> None:
        queries: list[NDArray[np.float32]] = []
        biases: list[float] = []
        shared: dict[PositionPooling, int] = {}
        self.first = []
        for head in heads:
            pooling = head.position_pooling
            if head.query is not None:
                self.first.append(len(biases))
                queries.append(head.query)
                biases += [0.0] * len(head.query)
                continue
            if pooling not in shared:
                # Equal scores are equal weights; a huge one takes all the weight.
                shared[pooling] = len(biases)
                queries.append(np.zeros((1, dim), np.float32))
                biases.append(FIRST_TOKEN_ONLY if pooling is PositionPooling.CLS else 0.0)
            self.first.append(shared[pooling])
        self.queries = np.concatenate(queries)
        self.first_token_bias = np.array(biases, np.float32)


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
