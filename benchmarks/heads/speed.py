"""Microseconds per text and task: the native kernels beside torch, NumPy and the peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.contenders.native_heads import NativeCall, PeakCall, fastest_level
from benchmarks.contenders.torch_heads import (
    FoldedTorchHeads,
    Unpacker,
    UsualHeads,
    packed,
    to_features,
)
from benchmarks.figures import flops
from benchmarks.figures.rounding import percentiles, rounded
from benchmarks.figures.turns import Contender, Samples, in_turn
from benchmarks.heads.cases import Settings, tasks_that_fit
from benchmarks.inputs.random_heads import random_codes, random_heads, spec_of
from benchmarks.inputs.shapes import CLASSES, TEXT_TOKENS, Shape
from benchmarks.processes.memory import available_bytes
from bitheads import kernels_info
from bitheads.engine.features.codes import code_affine
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Calibration, Quantization
from bitheads.engine.heads import float_heads
from bitheads.engine.heads.cpu import LaidOutHead, lay_out
from bitheads.engine.heads.head_file import FoldedHead
from bitheads.training.heads.task_head import TaskHead

Say = Callable[[str], None]

PEERS = ("torch_usual", "torch_folded", "torch_folded_unpacking", "numpy")
"""What the native kernels are compared with.

torch_usual: nn.MultiheadAttention and MLP over features that are float32 already.
torch_folded: the folded algebra over codes that are float32 already.
torch_folded_unpacking: the same from packed codes. numpy: what ran before them, from packed codes.
"""


@dataclass(frozen=True, eq=False)
class Bench:
    """Codes and heads of one shape and quantization.

    Attributes:
        laid_out: as many of the tasks asked for as memory has room for.
        heads: the first of them, for the peers.
    """

    shape: Shape
    features: PackedFeatures
    laid_out: Sequence[LaidOutHead]
    heads: Sequence[FoldedHead]

    @classmethod
    def make(cls, shape: Shape, quantization: Quantization, settings: Settings) -> Bench:
        spec = spec_of(shape, quantization)
        (first,) = random_heads(spec, shape.attention_heads, 1)
        tasks = tasks_that_fit(max(settings.tasks), lay_out(first).nbytes, available_bytes())
        laid_out: list[LaidOutHead] = []
        heads: list[FoldedHead] = []
        for head in random_heads(spec, shape.attention_heads, tasks):
            laid_out.append(lay_out(head))
            if len(heads) < settings.peer_tasks:
                heads.append(head)
        return cls(shape, random_codes(spec, settings.texts), laid_out, heads)


def measure(settings: Settings, threads: int, say: Say) -> dict[str, Any]:
    """Cells, threads and latency of every shape and kind of codes."""
    found: dict[str, Any] = {"cells": [], "threads": [], "latency": [], "laid_out": []}
    for name, shape in settings.encoders.items():
        for quantization in (Quantization.SIGN, Quantization.UINT8):
            say(f"heads of {name}'s shape, {quantization}: laying out {max(settings.tasks):,}")
            bench = Bench.make(shape, quantization, settings)
            where = {
                "shape": name,
                "dim": shape.dim,
                "attention_heads": shape.attention_heads,
                "codes": quantization.value,
            }
            block_bytes = [head.block.nbytes for head in bench.laid_out]
            laid_out = {"tasks": len(block_bytes), "bytes": sum(block_bytes)}
            found["laid_out"].append({**where, **laid_out})
            for cell in _cells(bench, settings):
                found["cells"].append({**where, **cell})
                say(f"  {cell['tasks']:,} tasks: {_shown(cell)}")
            found["threads"].append({**where, **_threads(bench, settings, threads)})
            found["latency"].append({**where, **_latency(bench, settings)})
    return found


def _cells(bench: Bench, settings: Settings) -> Iterator[dict[str, Any]]:
    levels = kernels_info().supported_levels
    peers = _peers(bench, settings)
    peaks = {level: PeakCall(level) for level in levels}
    for tasks in dict.fromkeys(min(tasks, len(bench.laid_out)) for tasks in settings.tasks):
        contenders = {name: made(tasks) for name, made in peers.items()}
        for level in levels:
            serial = level == "serial" and len(levels) > 1
            if serial and tasks > 1:
                continue
            features = bench.features[: settings.serial_texts] if serial else bench.features
            call = NativeCall(features, bench.laid_out[:tasks], level)
            contenders[level] = Contender(call, len(features) * tasks)
            peak = peaks[level]
            contenders[f"peak {level}"] = Contender(peak, peak.multiply_adds)
        samples = in_turn(contenders, settings.rounds, settings.budget_s)
        yield _cell(bench, samples, tasks)


def _peers(bench: Bench, settings: Settings) -> dict[str, Callable[[int], Contender]]:
    """For each of PEERS: number of tasks -> what is timed, on no more tasks than it takes."""
    features, spec, shape = bench.features, bench.features.spec, bench.shape
    texts = len(features)
    unpack, bits = Unpacker(spec), packed(features)
    codes = unpack(bits)
    # Any calibration will do: the heads are random.
    plain = np.ones(spec.dim, np.float32)
    calibration = Calibration(scale=plain / np.float32(64), zero_point=np.float32(128) * plain)
    scale, offset = code_affine(spec, calibration)
    usual_features = to_features(codes[: settings.usual_texts], scale, offset)
    torch.manual_seed(0)
    trained = [
        TaskHead(shape.dim, CLASSES, shape.attention_heads)
        for _ in range(min(settings.usual_tasks, max(settings.tasks)))
    ]

    def usual(tasks: int) -> Contender:
        heads = UsualHeads(trained[:tasks])
        work = len(usual_features) * min(tasks, len(trained))
        return Contender(lambda: heads(usual_features), work)

    def folded(tasks: int) -> Contender:
        heads = FoldedTorchHeads(bench.heads[:tasks])
        return Contender(lambda: heads(codes), texts * min(tasks, len(bench.heads)))

    def folded_unpacking(tasks: int) -> Contender:
        heads = FoldedTorchHeads(bench.heads[:tasks])
        return Contender(lambda: heads(bits, unpack), texts * min(tasks, len(bench.heads)))

    def numpy(tasks: int) -> Contender:
        heads = bench.heads[:tasks]
        return Contender(lambda: float_heads.predict_heads(features, heads), texts * len(heads))

    return dict(zip(PEERS, (usual, folded, folded_unpacking, numpy), strict=True))


def _cell(bench: Bench, samples: Samples, tasks: int) -> dict[str, Any]:
    levels = [level for level in kernels_info().supported_levels if level in samples]
    counted = flops.folded_head(TEXT_TOKENS, bench.shape.attention_heads, bench.shape.dim)
    return {
        "tasks": tasks,
        "texts": len(bench.features),
        "rounds": len(next(iter(samples.values()))),
        "multiply_adds": counted,
        "us_per_text_and_task": {name: samples.summary(name) for name in (*levels, *PEERS)},
        "times_faster": {
            level: {peer: rounded(samples.ratio(peer, level)) for peer in PEERS} for level in levels
        },
        "peak_multiply_adds_per_s": {
            level: rounded(1e6 / samples.median_us(f"peak {level}")) for level in levels
        },
        "percent_of_peak": {
            level: rounded(100 * counted * samples.ratio(f"peak {level}", level))
            for level in levels
        },
    }


def _threads(bench: Bench, settings: Settings, threads: int) -> dict[str, Any]:
    """One thread beside several, each with its share of the texts, at the fastest level."""
    tasks = min(settings.tasks[1], len(bench.laid_out))
    heads, features = bench.laid_out[:tasks], bench.features
    level = fastest_level()
    alone = NativeCall(features, heads, level)
    bounds = np.linspace(0, len(features), threads + 1).astype(int)
    parts = [
        NativeCall(features[int(start) : int(stop)], heads, level)
        for start, stop in pairwise(bounds)
        if stop > start
    ]
    work = len(features) * tasks
    with ThreadPoolExecutor(len(parts)) as pool:

        def together() -> None:
            for running in [pool.submit(part) for part in parts]:
                running.result()

        samples = in_turn(
            {"one": Contender(alone, work), "several": Contender(together, work)},
            settings.rounds,
            settings.budget_s,
        )
    return {
        "tasks": tasks,
        "threads": len(parts),
        "level": level,
        "texts": len(features),
        "us_per_text_and_task": {name: samples.summary(name) for name in samples},
        "times_faster": rounded(samples.ratio("one", "several")),
        "workspace_bytes": [alone.workspace_bytes, *(part.workspace_bytes for part in parts)],
        "same_bits": _same_bits(alone, parts),
    }


def _same_bits(alone: NativeCall, parts: Sequence[NativeCall]) -> bool:
    joined = [np.concatenate(task) for task in zip(*(part.logits for part in parts), strict=True)]
    pairs = zip(alone.logits, joined, strict=True)
    return all(np.array_equal(one, several) for one, several in pairs)


def _latency(bench: Bench, settings: Settings) -> dict[str, Any]:
    """One text at a time, all tasks, in turn."""
    tasks = min(settings.tasks[1], len(bench.heads))
    text = bench.features[:1]
    unpack, bits = Unpacker(text.spec), packed(text)
    codes = unpack(bits)
    folded = FoldedTorchHeads(bench.heads[:tasks])
    contenders = {
        "native": Contender(NativeCall(text, bench.laid_out[:tasks], fastest_level())),
        "torch_folded": Contender(lambda: folded(codes)),
        "torch_folded_unpacking": Contender(lambda: folded(bits, unpack)),
    }
    samples = in_turn(contenders, settings.latency_rounds, settings.budget_s, min_sample_s=0)
    return {
        "tasks": tasks,
        "calls": len(samples["native"]),
        "us": {name: percentiles(values, (50, 95)) for name, values in samples.items()},
    }


def _shown(cell: dict[str, Any]) -> str:
    return ", ".join(f"{name} {us['us']:g} us" for name, us in cell["us_per_text_and_task"].items())
