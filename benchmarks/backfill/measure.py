"""New tasks over a store: texts per second and core, beside the kernel and re-encoding.

Stores hold seeded codes of texts as long as real ones; heads and encoders have seeded weights,
which cost as much. Everything is measured in one run: the kernel on codes in memory, the whole
backfill (read, check, answer, write, sync), both on one core, and the backfill on all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.contenders.native_heads import NativeCall, fastest_level
from benchmarks.figures.rounding import rounded
from benchmarks.inputs import texts
from benchmarks.inputs.random_heads import random_codes, random_heads, spec_of
from benchmarks.inputs.seeded_bundle import make_bundle
from benchmarks.inputs.shapes import SHAPES, Shape
from benchmarks.options import command, require_at_least
from benchmarks.storage import files
from bitheads.engine import Engine, bundle
from bitheads.engine.commands.command_line import say
from bitheads.engine.features.packed import PackedFeatures
from bitheads.engine.features.spec import Quantization
from bitheads.engine.heads.cpu import LaidOutHead, lay_out
from bitheads.engine.jobs.answers import TaskHead
from bitheads.engine.jobs.backfill import Backfill
from bitheads.engine.store import FeatureStore, StoreWriter
from bitheads.engine.texts.tokenize import TextTokenizer

TASKS = (1, 14)
ROUNDS = 3
POOL_TEXTS = 2000
"""Texts whose lengths the stored texts have, again and again."""

BATCH_TEXTS = 4096
TINY = Shape(3, 64, 128, 4, pooled_layers=2, max_length=64, family="bert", vocab_size=30522)


@dataclass(frozen=True)
class Settings:
    """The size of a run.

    Attributes:
        shapes: encoders that the stores could be of.
        texts: in each store.
        encoded: texts that the encoder reads.
    """

    shapes: dict[str, Shape]
    texts: int
    encoded: int
    rounds: int = ROUNDS


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/backfill.json; a quick run's figures mean nothing and only print.

    Raises BundleError or InputError for what is missing.
    """
    require_at_least(BATCH_TEXTS, options, "texts")
    settings = Settings(SHAPES, options.texts, options.encoded_texts)
    if options.quick:
        settings = Settings({"tiny": TINY}, 500, 20, 1)
    result = {"quick": options.quick, **measure(options, settings)}
    record.keep("backfill", command("backfill", options), result, options.quick)


def measure(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Each shape after the other, in folders that are removed."""
    pool = texts.mixed(options.data, POOL_TEXTS if not options.quick else 100)
    shapes = {}
    for name, shape in settings.shapes.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            shapes[name] = measure_shape(name, shape, pool, Path(folder), options, settings)
    return {
        "level": fastest_level(),
        "data": texts.source_of(options.data),
        "cores": len(os.sched_getaffinity(0)),
        "shapes": shapes,
    }


def measure_shape(
    name: str,
    shape: Shape,
    pool: Sequence[str],
    folder: Path,
    options: argparse.Namespace,
    settings: Settings,
) -> dict[str, Any]:
    """The encoder on some of the texts, a store of all, and the backfills of it."""
    say(f"{name}: exporting")
    (folder / "bundle").mkdir()
    make_bundle(name, shape, options.bundle, folder / "bundle")
    tokenizer = TextTokenizer(
        folder / "bundle" / bundle.TOKENIZER,
        bundle.read_manifest(folder / "bundle").encoder.max_length,
    )
    lengths = np.array([tokens.ids.size for tokens in tokenizer(list(pool))], np.int64)
    say(f"{name}: encoding")
    with one_core():
        encoded = measure_encoder(folder / "bundle", pool[: settings.encoded])
    encoded["tokens_a_text"] = rounded(float(lengths[: settings.encoded].mean()))
    # For texts of the length of all, not of those that were encoded.
    us = encoded["us_a_text"] * float(lengths.mean() / lengths[: settings.encoded].mean())
    say(f"{name}: writing a store of {settings.texts:,} texts")
    spec = spec_of(shape, Quantization.SIGN)
    store = FeatureStore(folder / "store", spec)
    write_seconds = write_store(store, lengths, settings.texts)
    heads = [
        TaskHead(lay_out(head), "0" * 64)
        for head in random_heads(spec, shape.attention_heads, max(TASKS))
    ]
    tasks = {}
    for count in TASKS:
        say(f"{name}: {count} tasks")
        found = measure_tasks(store, heads[:count], folder / "answers", settings.rounds)
        found["times_encoding"] = rounded(us * found["texts_a_second_and_core"] / 1e6)
        tasks[str(count)] = found
    info = store.info()
    return {
        "dim": shape.dim,
        "texts": info.rows,
        "tokens_a_text": rounded(info.tokens / info.rows),
        "bytes_a_text": rounded(info.bytes_a_text),
        "code_bytes_a_text": rounded(info.code_bytes_a_text),
        "parts": info.parts,
        "write_texts_a_second": rounded(info.rows / write_seconds),
        "encoder": encoded,
        "encoding_us_a_text": rounded(us),
        "tasks": tasks,
        "of_50_tokens": measure_bytes(shape, folder),
    }


def measure_encoder(folder: Path, sample: Sequence[str]) -> dict[str, Any]:
    """Encoding on one core, as the engine does it, after a warm-up on the same texts."""
    with Engine.load(folder, "openvino", threads=1) as engine:
        engine.encode(sample)
        started_s = time.perf_counter()
        engine.encode(sample)
        seconds = time.perf_counter() - started_s
        return {
            "backend": engine.backend,
            "texts": len(sample),
            "us_a_text": rounded(1e6 * seconds / len(sample)),
        }


def write_store(store: FeatureStore, lengths: NDArray[np.int64], count: int) -> float:
    """Seeded codes, written through the store's own writer; returns the seconds it took."""
    rng = np.random.default_rng(4)
    seconds = 0.0
    with StoreWriter(store) as writer:
        for start in range(0, count, BATCH_TEXTS):
            rows = range(start, min(start + BATCH_TEXTS, count))
            sizes = lengths[np.array(rows) % lengths.size]
            offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            codes = rng.integers(0, 256, (int(offsets[-1]), store.spec.code_bytes), np.uint8)
            started_s = time.perf_counter()
            writer.append([f"{i:012d}" for i in rows], PackedFeatures(codes, offsets, store.spec))
            seconds += time.perf_counter() - started_s
    return seconds


def measure_tasks(
    store: FeatureStore, heads: Sequence[TaskHead], output: Path, rounds: int
) -> dict[str, Any]:
    """The kernel alone and the backfill on one core in turn, then the backfill on all."""
    features = next(store.scan()).features
    laid_out = [head.head for head in heads if isinstance(head.head, LaidOutHead)]
    kernel = NativeCall(features, laid_out, fastest_level())
    texts_of_all = len(store)
    kernel_rates, rates, all_rates = [], [], []
    for _ in range(rounds):
        with one_core():
            kernel()
            repeats = max(1, texts_of_all // (4 * len(features)))
            started_s = time.perf_counter()
            for _ in range(repeats):
                kernel()
            kernel_rates.append(repeats * len(features) / (time.perf_counter() - started_s))
            rates.append(texts_of_all / backfill_seconds(store, heads, output, 1))
        all_rates.append(texts_of_all / backfill_seconds(store, heads, output, None))
    cores = len(os.sched_getaffinity(0))
    return {
        "kernel_texts_a_second_and_core": rounded(statistics.median(kernel_rates)),
        "texts_a_second_and_core": rounded(statistics.median(rates)),
        "share_of_kernel": rounded(
            statistics.median(r / k for r, k in zip(rates, kernel_rates, strict=True))
        ),
        "all_cores_texts_a_second": rounded(statistics.median(all_rates)),
        "all_cores_times_one": rounded(
            statistics.median(a / r for a, r in zip(all_rates, rates, strict=True))
        ),
        "cores": cores,
    }


def backfill_seconds(
    store: FeatureStore, heads: Sequence[TaskHead], output: Path, threads: int | None
) -> float:
    """From an empty folder to answers that are on disk."""
    shutil.rmtree(output, ignore_errors=True)
    started_s = time.perf_counter()
    job = Backfill(store, heads, output)
    with job.lock():
        done = job.run(job.prepare(), threads)
    seconds = time.perf_counter() - started_s
    assert done == len(store)
    return seconds


def measure_bytes(shape: Shape, folder: Path) -> dict[str, float]:
    """Bytes per text of 50 tokens: in store files, and with all layers in fp16 in a raw file."""
    found = {}
    count = 20 * files.BATCH_TEXTS
    for quantization in Quantization:
        spec = spec_of(shape, quantization)
        where = folder / quantization.value
        store = FeatureStore(where, spec)
        with StoreWriter(store) as writer:
            writer.append([f"{i:012d}" for i in range(count)], random_codes(spec, count))
        found[quantization.value] = rounded(store.info().bytes_a_text)
    features = files.seeded(shape, 2)
    file = folder / "all-layers"
    files.write(file, features, "every layer", "every token", "fp16")
    return {**found, "all layers float16": file.stat().st_size / 2}


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps all threads of this process on one core, those to come too."""
    before = os.sched_getaffinity(0)
    tasks = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    for task in tasks:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(task, {max(before)})
    try:
        yield
    finally:
        for path in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has ended
                os.sched_setaffinity(int(path.name), before)
