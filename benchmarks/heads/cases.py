"""The size of a run: whose heads, how many of them, how many texts and rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.inputs.shapes import SHAPES, Shape

MEMORY_SHARE = 0.6
"""Share of the available memory that heads may take."""


@dataclass(frozen=True)
class Settings:
    """The size of a run.

    Attributes:
        encoders: whose dim and attention heads the task heads have.
        distilled: the smaller encoder, of which each task has its own.
        tasks: per call, ascending.
        texts: per call of the native kernels, of NumPy and of the folded form in torch.
        usual_texts: per call of torch's MultiheadAttention.
        serial_texts: per call of the serial level, at one task alone.
        peer_tasks: most tasks that NumPy and torch compute; they cost the same each.
        usual_tasks: the same for torch's MultiheadAttention.
        rounds, budget_s: see benchmarks.figures.turns.in_turn.
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
"""Tiny sizes, to see that everything runs; the figures mean nothing."""


def tasks_that_fit(tasks: int, bytes_a_head: int, available_bytes: int) -> int:
    """As many of `tasks` heads as take MEMORY_SHARE of what is available, at least one."""
    return max(1, min(tasks, int(MEMORY_SHARE * available_bytes) // bytes_a_head))
