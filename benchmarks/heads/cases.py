"""What is measured: shapes, random codes, random heads, and how many multiplications they ask for.

Every head has weights of its own. Copies of one head would sit in the cache and hide what reading
a thousand of them costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import SHAPES, Shape
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import (
    FeatureSpec,
    LayerPooling,
    Order,
    PositionPooling,
    Quantization,
)
from bitheads.engine.heads.head_file import FoldedHead

TEXT_TOKENS = 50
CLASSES = 3
CODES = (Quantization.SIGN, Quantization.UINT8)
MEMORY_SHARE = 0.6
"""Of what is available, what heads may take."""

POOL = 1 << 23
"""Random numbers that are drawn; each head starts somewhere else among them."""


@dataclass(frozen=True)
class Settings:
    """The size of a run.

    Attributes:
        encoders: whose dim and attention heads the task heads have.
        distilled: the smaller encoder that is fine-tuned a task.
        tasks: a call, ascending.
        texts: a call of the native kernels, of NumPy and of the folded form in torch.
        usual_texts: a call of torch's MultiheadAttention.
        serial_texts: a call of the serial level, at one task alone.
        peer_tasks: most tasks that NumPy and torch compute; they cost the same each.
        usual_tasks: the same for torch's MultiheadAttention.
        rounds, budget_s: see benchmarks.heads.timing.in_turn.
        latency_rounds: single texts that are timed.
        head_files: that are written and read at the smallest dim; a tenth at others.
        encoder_rows: texts of 50 tokens in an encoder's call; 20 are the engine's own batch.
    """

    encoders: Mapping[str, Shape]
    distilled: Shape
    tasks: tuple[int, ...] = (1, 14, 100, 1000)
    texts: int = 256
    usual_texts: int = 64
    serial_texts: int = 8
    peer_tasks: int = 14
    usual_tasks: int = 2
    rounds: int = 9
    budget_s: float = 20.0
    latency_rounds: int = 300
    head_files: int = 100
    encoder_rows: int = 20


FULL = Settings(
    encoders=SHAPES,
    distilled=Shape(layers=6, dim=768, ffn_dim=3072, attention_heads=12, pooled_layers=1),
)
_TINY = Shape(
    layers=1, dim=64, ffn_dim=128, attention_heads=4, pooled_layers=1, vocab_size=200, max_length=64
)
QUICK = Settings(
    encoders={"tiny": _TINY},
    distilled=_TINY,
    tasks=(1, 2, 3, 5),
    texts=8,
    usual_texts=4,
    serial_texts=2,
    peer_tasks=2,
    rounds=3,
    budget_s=0.1,
    latency_rounds=5,
    head_files=10,
    encoder_rows=2,
)
"""To see that everything runs; its figures mean nothing."""


def spec_of(shape: Shape, quantization: Quantization) -> FeatureSpec:
    """A spec for random codes."""
    return FeatureSpec(
        encoder="random",
        weights_sha256="0" * 64,
        layers=tuple(range(1, shape.pooled_layers + 1)),
        layer_pooling=LayerPooling.MEAN,
        quantization=quantization,
        order=Order.POOL_THEN_SIGN,
        dim=shape.dim,
    )


def random_codes(spec: FeatureSpec, texts: int, text_tokens: int = TEXT_TOKENS) -> PackedFeatures:
    """The same each time."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (texts * text_tokens, spec.code_bytes), np.uint8)
    if spec.quantization is Quantization.SIGN and spec.dim % 8:
        codes[:, -1] &= 0xFF << (8 - spec.dim % 8) & 0xFF
    return PackedFeatures(codes, np.arange(texts + 1, dtype=np.int64) * text_tokens, spec)


def random_heads(
    spec: FeatureSpec, attention_heads: int, count: int, classes: int = CLASSES
) -> Iterator[FoldedHead]:
    """Heads of different weights whose answers differ from text to text; the same each time."""
    rng = np.random.default_rng(2)
    dim = spec.dim
    pool = rng.standard_normal(max(POOL, 2 * dim * dim), np.float32)
    # Codes go to 255 where a feature takes a byte: scores and tanh stay in the same range.
    code_size = 128 if spec.quantization is Quantization.UINT8 else 1

    def draw(scale: float, *shape: int) -> NDArray[np.float32]:
        size = int(np.prod(shape))
        start = int(rng.integers(pool.size - size + 1))
        return pool[start : start + size].reshape(shape) * np.float32(scale)

    for i in range(count):
        yield FoldedHead(
            task=f"random-{i}",
            labels=tuple(f"label-{label}" for label in range(classes)),
            form="single",
            position_pooling=PositionPooling.ATTENTION,
            spec=spec,
            query=draw(3 * dim**-0.5 / code_size, attention_heads, dim),
            value=draw(2 * dim**-0.5 / code_size, dim, dim),
            dense=draw(2 * dim**-0.5, dim, dim),
            dense_bias=draw(0.3, dim),
            output=draw(2 * dim**-0.5, classes, dim),
            output_bias=draw(0.3, classes),
        )


def multiply_adds(
    tokens: int, attention_heads: int, dim: int, classes: int = CLASSES, inner: int | None = None
) -> int:
    """Of one text and task: scores, pooled codes, values, dense stage, logits.

    Pooled codes count as if they were multiplied, whatever a kernel does instead.
    """
    inner = dim if inner is None else inner
    per_token = attention_heads * dim + attention_heads * dim
    return tokens * per_token + dim * dim + inner * dim + classes * inner


def tasks_that_fit(tasks: int, bytes_a_head: int, available_bytes: int) -> int:
    """As many of `tasks` heads as take MEMORY_SHARE of what is available, at least one."""
    return max(1, min(tasks, int(MEMORY_SHARE * available_bytes) // bytes_a_head))


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")
