"""pool_and_pack at every level, in bytes of hidden states per second, beside a copy of them."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.contenders.packing import PackCall
from benchmarks.inputs.shapes import SHAPES as ENCODERS
from bitheads import kernels_info

REPEATS = 15
SHAPES = {
    name: {
        "layers": ENCODERS[name].pooled_layers,
        "dim": ENCODERS[name].dim,
        "rows": rows,
        "seq": 64,
    }
    for name, rows in (("all-MiniLM-L6-v2", 32), ("RoBERTa-large", 16))
}
MODES = {
    "sign": ("sign", "pool_then_sign"),
    "sign, vote": ("sign", "sign_then_vote"),
    "uint8": ("uint8", "pool_then_sign"),
    "float16": ("float16", "pool_then_sign"),
}
"""Mode -> its quantization and order."""


def run(options: argparse.Namespace) -> None:
    """Medians over REPEATS runs; inputs are float16, far larger than the caches at both shapes."""
    random = np.random.default_rng(0)
    result: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        size = (shape["rows"], shape["seq"], shape["dim"])
        # Several input sets in turn, so that none is still in the cache when its turn comes.
        sets = [
            [random.standard_normal(size).astype(np.float16) for _ in range(shape["layers"])]
            for _ in range(4)
        ]
        bytes_read = sum(layer.nbytes for layer in sets[0])
        target = [np.empty_like(layer) for layer in sets[0]]
        copy_s = _median_s([partial(_copy, layers, target) for layers in sets])
        rows: dict[str, Any] = {}
        for mode, (quantization, order) in MODES.items():
            for level in kernels_info().supported_levels:
                seconds = _median_s([PackCall(s, quantization, order, level) for s in sets])
                rows.setdefault(mode, {})[level] = {
                    "gb_per_s": round(bytes_read / seconds / 1e9, 2),
                    "times_a_copy": round(seconds / copy_s, 3),
                    "us_per_1000_tokens": round(1e9 * seconds / (shape["rows"] * shape["seq"]), 1),
                }
        result[name] = {
            "shape": shape,
            "bytes_read": bytes_read,
            "copy_gb_per_s": round(bytes_read / copy_s / 1e9, 2),
            "modes": rows,
        }
    record.write("pack", "python -m benchmarks pack", result)


def _copy(source: list[Any], target: list[Any]) -> None:
    for from_layer, to_layer in zip(source, target, strict=True):
        np.copyto(to_layer, from_layer)


def _median_s(calls: Sequence[Callable[[], object]]) -> float:
    for call in calls:
        call()
    seconds = []
    for i in range(REPEATS):
        started_s = time.perf_counter()
        calls[i % len(calls)]()
        seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds)
