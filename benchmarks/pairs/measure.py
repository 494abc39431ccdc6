"""What pairs cost as two texts: each text once, then each pair; and joined, on one core.

In time of the processor, see benchmarks.figures.processor_time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.contenders.native_heads import fastest_level
from benchmarks.figures.processor_time import least_us
from benchmarks.figures.rounding import rounded
from benchmarks.inputs.random_heads import (
    random_codes,
    random_heads,
    random_two_texts_heads,
    spec_of,
)
from benchmarks.inputs.shapes import SHAPES, TEXT_TOKENS
from benchmarks.inputs.texts import mixed, source_of
from benchmarks.options import command, require_at_least
from bitheads.engine import Engine
from bitheads.engine.features.spec import Quantization
from bitheads.engine.heads.cpu import CpuHead, HeadThreads, lay_out, predict_heads
from bitheads.engine.types import Text

SMALLEST = "all-MiniLM-L6-v2"
HEADS = (1, 8)
PAIRS = 6000
"""Pairs per call of the heads."""
STORED_TEXTS = 600
ROUNDS = 9


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/pairs.json; a quick run only prints."""
    require_at_least(2, options, "texts")
    rounds, num_pairs = (2, 60) if options.quick else (ROUNDS, PAIRS)
    shapes = [SMALLEST] if options.quick else [*SHAPES]
    texts = mixed(options.data, 24 if options.quick else options.texts)
    result = {
        "quick": options.quick,
        "texts": source_of(options.data),
        "level": fastest_level(),
        "text_tokens": TEXT_TOKENS,
        "heads": [cell for name in shapes for cell in _heads(name, num_pairs, rounds)],
        "encoding": _encoding(options.bundle, texts, rounds),
    }
    record.keep("pairs", command("pairs", options), result, options.quick)


def _heads(name: str, num_pairs: int, rounds: int) -> list[dict[str, Any]]:
    """Microseconds of a processor per text or pair, and head, on random signs."""
    spec = spec_of(SHAPES[name], Quantization.SIGN)
    sizes = (spec, SHAPES[name].attention_heads, max(HEADS))
    apart: list[CpuHead] = [*map(lay_out, random_two_texts_heads(*sizes))]
    joint: list[CpuHead] = [*map(lay_out, random_heads(*sizes))]
    texts = random_codes(spec, min(STORED_TEXTS, num_pairs))
    joined = random_codes(spec, len(texts), 2 * TEXT_TOKENS)
    pairs = np.random.default_rng(0).integers(0, len(texts), (num_pairs, 2))
    cells = []
    with HeadThreads(1) as threads:
        for count in HEADS:
            vectors = threads.text_vectors(texts, apart[:count])
            calls: dict[str, tuple[Callable[[], object], int]] = {
                "text": (partial(threads.text_vectors, texts, apart[:count]), len(texts) * count),
                "pair": (
                    partial(threads.pair_outputs, vectors, pairs, apart[:count]),
                    num_pairs * count,
                ),
                "joint": (partial(predict_heads, joined, joint[:count]), len(joined) * count),
            }
            least = least_us(calls, rounds)
            processor_us = {what: rounded(us) for what, us in least.items()}
            cells.append({"shape": name, "heads": count, "processor_us": processor_us})
    return cells


def _encoding(bundle: Path, texts: list[str], rounds: int) -> dict[str, Any]:
    """Microseconds of a processor per text, and per pair of two of them."""
    order = np.random.default_rng(0).permutation(len(texts))
    pairs: list[Text] = [(texts[i], texts[j]) for i, j in enumerate(order)]
    with Engine.load(bundle, threads=1) as engine:
        calls = {
            "text": (partial(engine.encode, texts), len(texts)),
            "joint": (partial(engine.encode, pairs), len(pairs)),
        }
        least = least_us(calls, rounds)
        tokens = {
            "text": engine.encode(texts).stats.num_tokens / len(texts),
            "joint": engine.encode(pairs).stats.num_tokens / len(pairs),
        }
        return {
            "bundle": bundle.name,
            "backend": engine.backend,
            "count": len(texts),
            "tokens": {what: rounded(count) for what, count in tokens.items()},
            "processor_us": {what: rounded(us) for what, us in least.items()},
        }
