"""Task heads as one would write them in torch, for comparison: as trained, and folded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import FeatureSpec, Quantization
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.training.heads.task_head import TaskHead

BLOCK_TEXTS = 32
"""Texts per block of the folded form: of 8 to 256 the fastest or next to it, at dim 384 and 1024,
with 1 and 14 tasks."""


class UsualHeads:
    """One nn.MultiheadAttention with a learned query per task, then dense, tanh, output."""

    def __init__(self, heads: Sequence[TaskHead]) -> None:
        self._heads = [head.eval() for head in heads]

    @torch.inference_mode()
    def __call__(self, features: torch.Tensor) -> list[torch.Tensor]:
        """features: float32 [texts, tokens, dim] -> logits [texts, classes] per task."""
        logits = []
        for head in self._heads:
            query = head.query.expand(len(features), 1, -1)
            pooled, _ = head.attention(query, features, features, need_weights=False)
            logits.append(head.output(torch.tanh(head.dense(pooled[:, 0]))))
        return logits


class Unpacker:
    """Packed codes as float32, the fastest way torch has: a table of bytes."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._dim = spec.dim
        self._signs = spec.quantization is Quantization.SIGN
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        self._table = torch.from_numpy(bits.view(np.int64).ravel())

    @torch.inference_mode()
    def __call__(self, codes: torch.Tensor) -> torch.Tensor:
        """uint8 [texts, tokens, code_bytes] -> float32 [texts, tokens, dim]: 0 and 1, or to 255."""
        if not self._signs:
            return codes.float()
        eight = torch.index_select(self._table, 0, codes.reshape(-1).int())
        return eight.view(torch.uint8).view(*codes.shape[:2], -1)[:, :, : self._dim].float()


def packed(features: PackedFeatures) -> torch.Tensor:
    """The codes of texts of one length, uint8 [texts, tokens, code_bytes]; shares their memory."""
    return torch.from_numpy(features.codes.reshape(len(features), -1, features.spec.code_bytes))


class FoldedTorchHeads:
    """Folded attention heads of one shape: all tasks in a few batched products, in float32."""

    def __init__(self, heads: Sequence[FoldedHead]) -> None:
        def stack(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([getattr(head, name) for head in heads]))

        query = stack("query")
        self._tasks, self._attention_heads, self._dim = query.shape
        self._query = query.reshape(-1, self._dim).T.contiguous()
        rows = self._dim // self._attention_heads
        value = stack("value").reshape(-1, rows, self._dim)
        # Products are faster with the shared index in rows: transposed once, here.
        self._value = value.transpose(1, 2).contiguous()
        self._dense = stack("dense").transpose(1, 2).contiguous()
        self._dense_bias = stack("dense_bias")[:, None]
        self._output = stack("output").transpose(1, 2).contiguous()
        self._output_bias = stack("output_bias")[:, None]

    @torch.inference_mode()
    def __call__(self, codes: torch.Tensor, unpack: Unpacker | None = None) -> torch.Tensor:
        """Logits [tasks, texts, classes].

        Args:
            codes: float32 [texts, tokens, dim], or what `unpack` makes that of, block by block.
        """
        blocks = torch.split(codes, BLOCK_TEXTS)
        return torch.cat([self._block(unpack(b) if unpack else b) for b in blocks], dim=1)

    def _block(self, codes: torch.Tensor) -> torch.Tensor:
        texts = len(codes)
        weights = torch.softmax(codes @ self._query, dim=1)
        pooled = torch.bmm(weights.transpose(1, 2), codes)  # [texts, tasks * heads, dim]
        values = torch.bmm(pooled.transpose(0, 1), self._value)
        inner = values.view(self._tasks, self._attention_heads, texts, -1)
        inner = inner.transpose(1, 2).reshape(self._tasks, texts, self._dim)
        hidden = torch.tanh(torch.baddbmm(self._dense_bias, inner, self._dense))
        return torch.baddbmm(self._output_bias, hidden, self._output)


def to_features(
    codes: torch.Tensor, scale: NDArray[np.float32], offset: NDArray[np.float32]
) -> torch.Tensor:
    """What a head that is not folded reads: scale * code + offset."""
    return codes * torch.from_numpy(scale) + torch.from_numpy(offset)
