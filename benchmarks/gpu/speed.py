"""Latency of one text and throughput of many, for everything that answers texts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.figures.rounding import rounded
from benchmarks.gpu.context import Bench, Predictor
from benchmarks.gpu.outcome import Outcome, attempt, latencies
from benchmarks.inputs.texts import mixed
from bitheads.engine.types import Text

LENGTHS = (8, 50, 200)
BUDGETS = (1024, 4096, 16384)
STAGES = ("tokenize_s", "encode_s", "pack_s", "heads_s")

Open = Callable[[Bench], AbstractContextManager[Predictor]]


def compare(bench: Bench, contenders: Mapping[str, Open]) -> dict[str, Outcome]:
    """Both measurements for each contender, one open at a time: none shares the GPU."""

    def measure(open_contender: Open) -> dict[str, Any]:
        started_s = time.perf_counter()
        with open_contender(bench) as predictor:
            load_s = time.perf_counter() - started_s
            started_s = time.perf_counter()
            predictor.predict([bench.maker.text(LENGTHS[0])[0]])
            first_call_s = time.perf_counter() - started_s
            return {
                "load_s": rounded(load_s),
                "first_call_s": rounded(first_call_s),
                "latency": latency(bench, predictor),
                "throughput": throughput(bench, predictor),
            }

    return {name: attempt(name, measure, opener) for name, opener in contenders.items()}


def latency(bench: Bench, predictor: Predictor) -> dict[str, Any]:
    """One text, all heads, from a string to logits on the host: wall time in ms."""
    found: dict[str, Any] = {}
    for length in LENGTHS:
        if length > bench.manifest.encoder.max_length:
            continue
        texts: list[Text] = []
        sizes = set()
        for _ in range(8):  # different texts, so that no cache of strings or shapes is all there is
            text, size = bench.maker.text(length)
            texts.append(text)
            sizes.add(size)
        for i in range(bench.repeats.warm_up):
            predictor.predict([texts[i % len(texts)]])
        seconds = []
        for i in range(bench.repeats.latency):
            text_in = [texts[i % len(texts)]]
            started_s = time.perf_counter()
            predictor.predict(text_in)
            seconds.append(time.perf_counter() - started_s)
        found[str(length)] = {**latencies(seconds), "tokens": sorted(sizes)}
    return found


def throughput(bench: Bench, predictor: Predictor) -> dict[str, Any]:
    """Texts and tokens per second at several token budgets, all heads, tokenizing included."""
    count = bench.repeats.texts
    sets: dict[str, list[Text]] = {
        "shipped sentences": [*mixed(None, count)],
        "random lengths": bench.maker.random_texts(count),
    }
    return {
        name: {
            str(budget): attempt(
                f"  {name}, {budget} tokens per call", _throughput, bench, predictor, texts, budget
            )
            for budget in BUDGETS
        }
        for name, texts in sets.items()
    }


def _throughput(
    bench: Bench, predictor: Predictor, texts: list[Text], budget: int
) -> dict[str, Any]:
    predictor.predict(texts, max_batch_tokens=budget)
    runs = []
    for _ in range(bench.repeats.throughput):
        started_s = time.perf_counter()
        predictions = predictor.predict(texts, max_batch_tokens=budget)
        runs.append((time.perf_counter() - started_s, predictions.stats))
    seconds = statistics.median(run[0] for run in runs)
    stats = runs[-1][1]
    # What tokenizes while it encodes is as fast as its other stages are.
    of_stages = [sum(getattr(run[1], name) for name in STAGES[1:]) for run in runs]
    tokenize_s = statistics.median(run[1].tokenize_s for run in runs)
    without_s = min(seconds, max(seconds - tokenize_s, statistics.median(of_stages)))
    return {
        "texts_per_s": rounded(len(texts) / seconds),
        "tokens_per_s": rounded(stats.num_tokens / seconds),
        "tokens_per_s_without_tokenizing": rounded(stats.num_tokens / without_s),
        "seconds": {
            "min": rounded(min(r[0] for r in runs)),
            "max": rounded(max(r[0] for r in runs)),
        },
        "share_of_padding": rounded(
            stats.num_padding / max(1, stats.num_tokens + stats.num_padding)
        ),
        "stages_s": {name: rounded(getattr(stats, name)) for name in STAGES},
        "texts": len(texts),
        "tokens": stats.num_tokens,
    }
