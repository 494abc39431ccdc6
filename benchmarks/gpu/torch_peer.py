"""The same encoder, layers and heads in torch: what one would write without this project.

Written to be fast, too: the heads of all tasks run as a few batched products.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from benchmarks.gpu.context import Bench
from benchmarks.gpu.outcome import Skip
from bitheads.engine import bundle
from bitheads.engine.batching import cut_batches, pad_batch
from bitheads.engine.device.encoder import CALL_TOKENS, MAX_BATCH_TOKENS
from bitheads.engine.features.spec import Order, PositionPooling, Quantization
from bitheads.engine.heads.head import is_of_words
from bitheads.engine.heads.head_file import SUFFIX, FoldedHead, read_head
from bitheads.engine.predictions import Prediction, Predictions
from bitheads.engine.texts.forms import reads_apart
from bitheads.engine.types import Stats, Text
from bitheads.export.source.encoder import find_encoder


class TorchPeer:
    """See benchmarks.gpu.context.Predictor."""

    def __init__(self, bench: Bench, device: str, dtype: torch.dtype) -> None:
        spec = bench.manifest.spec
        if (
            spec.quantization is not Quantization.SIGN
            or spec.order is not Order.POOL_THEN_SIGN
            or spec.layer_weights is not None
        ):
            raise Skip(f"torch has a peer for signs of a plain mean only, the bundle has {spec}.")
        calibration = bundle.read_calibration(bench.bundle, spec)
        thresholds = None if calibration is None else calibration.thresholds
        self._thresholds = (
            torch.zeros(1, device=device)
            if thresholds is None
            else torch.from_numpy(thresholds).to(device)
        )
        self._layers, self._device, self._dtype = spec.layers, device, dtype
        self._tokenizer, self._pad_id = bench.tokenizer, bench.manifest.encoder.pad_id
        model: Any = AutoModel.from_pretrained(
            find_encoder(bench.encoder), dtype=dtype, attn_implementation="sdpa"
        )
        self._model = model.eval().to(device)
        self._reads_types = getattr(model.config, "type_vocab_size", 0) > 1
        paths = sorted((bench.bundle / bundle.HEADS).glob(f"*{SUFFIX}"))
        heads = [read_head(path) for path in paths]
        # It is asked about whole texts, one by one.
        own = [head for head in heads if not reads_apart(head) and not is_of_words(head)]
        self._heads = TorchHeads(own, device, dtype)

    @torch.inference_mode()
    def predict(self, texts: list[Text], *, max_batch_tokens: int | None = None) -> Predictions:
        started_s = time.perf_counter()
        tokens = self._tokenizer(texts)
        tokenize_s = time.perf_counter() - started_s
        lengths = np.array([text.ids.size for text in tokens], np.int64)
        logits = torch.empty(
            self._heads.num_tasks, len(texts), self._heads.num_classes, device=self._device
        )
        stats = Stats(tokenize_s=tokenize_s)
        for rows in cut_batches(lengths, max_batch_tokens or MAX_BATCH_TOKENS, CALL_TOKENS):
            batch = pad_batch([tokens[i] for i in rows], self._pad_id)
            where = torch.from_numpy(rows).to(self._device)
            logits[:, where] = self._run(batch).float()
            num_tokens = int(batch.lengths.sum())
            stats += Stats(
                num_texts=rows.size,
                num_tokens=num_tokens,
                num_batches=1,
                num_padding=batch.input_ids.size - num_tokens,
            )
        return Predictions(self._heads.split(logits.cpu().numpy()), stats)

    def _run(self, batch: Any) -> torch.Tensor:
        inputs = {
            name: torch.from_numpy(getattr(batch, name)).to(self._device)
            for name in ("input_ids", "attention_mask", "token_type_ids")
            if name != "token_type_ids" or self._reads_types
        }
        hidden = self._model(**inputs, output_hidden_states=True).hidden_states
        mean = torch.stack([hidden[i] for i in self._layers]).float().mean(dim=0)
        codes = (mean > self._thresholds).to(self._dtype)
        return self._heads(codes, inputs["attention_mask"].bool())

    def close(self) -> None:
        del self._model, self._heads


class TorchHeads:
    """Folded heads of one shape (engine.heads.head_file.FoldedHead), all tasks at once."""

    def __init__(self, heads: Sequence[FoldedHead], device: str, dtype: torch.dtype) -> None:
        shapes = {
            (h.position_pooling, None if h.query is None else h.query.shape, h.dense.shape)
            for h in heads
        }
        if len(shapes) != 1 or heads[0].position_pooling is not PositionPooling.ATTENTION:
            raise Skip(
                "torch has a peer for attention heads of one shape only, the bundle has "
                f"{len(heads)} heads of {len(shapes)} shapes."
            )

        def stack(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([getattr(h, name) for h in heads])).to(device, dtype)

        self._tasks = [(head.task, head.labels) for head in heads]
        self.num_tasks = len(heads)
        self.num_classes = max(head.num_outputs for head in heads)
        query = stack("query")  # [tasks, attention_heads, dim]
        self._attention_heads, self._dim = query.shape[1:]
        self._query = query.reshape(-1, self._dim).T.contiguous()
        self._value = stack("value").reshape(-1, self._dim // self._attention_heads, self._dim)
        self._dense, self._dense_bias = stack("dense"), stack("dense_bias")
        output = np.zeros((self.num_tasks, self.num_classes, heads[0].dense.shape[0]), np.float32)
        output_bias = np.full((self.num_tasks, self.num_classes), -1e4, np.float32)
        for i, head in enumerate(heads):
            output[i, : head.num_outputs] = head.output
            output_bias[i, : head.num_outputs] = head.output_bias
        self._output = torch.from_numpy(output).to(device, dtype)
        self._output_bias = torch.from_numpy(output_bias).to(device, dtype)

    def __call__(self, codes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """codes [rows, seq, dim], mask bool [rows, seq] -> logits [tasks, rows, classes]."""
        rows = codes.shape[0]
        scores = (codes @ self._query).float().masked_fill(~mask[:, :, None], -torch.inf)
        weights = scores.softmax(dim=1).to(codes.dtype)
        pooled = weights.transpose(1, 2) @ codes  # [rows, tasks * heads, dim]
        values = pooled.transpose(0, 1) @ self._value.transpose(1, 2)
        inner = (
            values.reshape(self.num_tasks, self._attention_heads, rows, -1)
            .transpose(1, 2)
            .reshape(self.num_tasks, rows, self._dim)
        )
        hidden = torch.tanh(
            torch.baddbmm(self._dense_bias[:, None], inner, self._dense.transpose(1, 2))
        )
        return torch.baddbmm(self._output_bias[:, None], hidden, self._output.transpose(1, 2))

    def split(self, logits: np.ndarray) -> dict[str, Prediction]:
        """float32 [tasks, texts, classes] -> task -> its answer."""
        return {
            task: Prediction(labels, answer[:, : len(labels)])
            for (task, labels), answer in zip(self._tasks, logits, strict=True)
        }
