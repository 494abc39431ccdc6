"""The heads' kernels on the GPU for growing numbers of tasks, from codes to logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.figures.rounding import rounded
from benchmarks.gpu.context import Bench, Gpu
from benchmarks.gpu.outcome import Outcome, attempt
from benchmarks.inputs.random_heads import random_heads
from benchmarks.inputs.shapes import TEXT_TOKENS
from bitheads.engine.features.spec import FeatureSpec
from bitheads.engine.heads.head_file import FoldedHead

TASK_COUNTS = (1, 14, 100, 1000)
TEXTS = 327
"""Texts that fill a call of 16,384 tokens, see benchmarks/roofline/model.py."""


def alike_heads(spec: FeatureSpec, attention_heads: int, count: int) -> list[FoldedHead]:
    """Heads that share one set of random weights, so that a thousand fit in memory."""
    (first,) = random_heads(spec, attention_heads, 1)
    return [replace(first, task=f"random-{i}") for i in range(count)]


def time_heads(gpu: Gpu, bench: Bench, texts: int | None = None) -> dict[str, Outcome]:
    """For each number of tasks: ms per full call, ns per token, ns per token and task."""
    return {
        str(tasks): attempt(f"  heads of {tasks} tasks", _time, gpu, bench, tasks, texts or TEXTS)
        for tasks in TASK_COUNTS
    }


def _time(gpu: Gpu, bench: Bench, tasks: int, texts: int) -> dict[str, Any]:
    from bitheads.engine.device.heads import DeviceHeads

    cuda, spec = gpu.device.cuda, bench.manifest.spec
    tokens = texts * TEXT_TOKENS
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (tokens, spec.code_bytes), np.uint8)
    offsets = np.arange(texts + 1, dtype=np.int64) * TEXT_TOKENS
    heads = alike_heads(spec, bench.manifest.encoder.attention_heads, tasks)
    with gpu.device.current("timing the task heads"):
        device_heads = DeviceHeads(gpu.device, gpu.code, spec, gpu.stream)
        try:
            group = device_heads.group(heads)
            logits = cuda.pagelocked_empty(texts * group.num_classes, np.float32)
            with gpu.memory(codes.nbytes, offsets.nbytes) as (codes_at, offsets_at):
                cuda.memcpy_htod(codes_at, codes)
                cuda.memcpy_htod(offsets_at, offsets)
                seconds = gpu.time_s(
                    lambda: group.enqueue(int(codes_at), int(offsets_at), texts, logits),
                    bench.repeats.kernel,
                )
        finally:
            gpu.stream.synchronize()
            device_heads.close()
    return {
        "texts": texts,
        "tokens": tokens,
        "ms": rounded(1e3 * seconds),
        "ns_per_token": rounded(1e9 * seconds / tokens),
        "ns_per_token_and_task": rounded(1e9 * seconds / tokens / tasks),
    }
