"""One short text, all heads: `Engine.predict` beside the bare encoder, and the first answer."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.figures.rounding import percentiles, rounded
from benchmarks.figures.turns import Contender, Samples, in_turn
from benchmarks.options import command, require_at_least
from benchmarks.processes import child
from bitheads.engine import Engine, bundle
from bitheads.engine.batching import pad_batch
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError
from bitheads.engine.sessions import open_session
from bitheads.engine.text_batches import open_tokenizer

TEXT = "How do I change the address on my account?"
LATER_STARTS = 3
QUICK_CALLS = 5
PREDICT, BARE = "predict", "bare encoder"


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/latency.json; a quick run's figures mean nothing and only print.

    Raises BundleError, BackendError or InputError, first of all, for what is missing.
    """
    require_at_least(1, options, "threads", "calls")
    calls, starts = (QUICK_CALLS, 1) if options.quick else (options.calls, LATER_STARTS)
    result = {
        "quick": options.quick,
        "threads": options.threads,
        "text": TEXT,
        **measure(options.bundle, options.threads, calls),
        "start": first_answers(options.bundle, options.threads, starts),
    }
    record.keep("latency", command("latency", options), result, options.quick)


def measure(bundle_folder: Path, threads: int, calls: int) -> dict[str, Any]:
    """Percentiles of both, in turn, call by call, over the same tokens.

    The bare encoder is a session of its own on the bundle's graph, in the engine's precision: the
    call alone, its input made before.
    """
    with Engine.load(bundle_folder, threads=threads) as engine:
        if not engine.tasks:
            raise InputError(f"bundle {bundle_folder} has no heads, so nothing to predict.")
        backend, precision = engine.backend.split()
        manifest = engine.manifest
        session = open_session(
            bundle_folder / bundle.GRAPH, manifest.output_names, backend, precision, threads
        )
        tokenizer = open_tokenizer(bundle_folder, manifest)
        batch = pad_batch(tokenizer([TEXT]), manifest.encoder.pad_id)
        contenders = {
            PREDICT: Contender(partial(engine.predict, [TEXT])),
            BARE: Contender(partial(session.run, batch)),
        }
        say(f"{calls} calls of each")
        in_turn(contenders, max(3, calls // 10), budget_s=10, min_sample_s=0)  # to warm up
        samples = in_turn(contenders, calls, budget_s=3600, min_sample_s=0)
        return {
            "encoder": manifest.spec.encoder,
            "backend": engine.backend,
            "tasks": len(engine.tasks),
            "text_tokens": int(batch.lengths[0]),
            **summary(samples),
        }


def summary(samples: Samples) -> dict[str, Any]:
    """Percentiles of each, and how much later the middle prediction comes than the encoder."""
    return {
        "calls": len(samples[PREDICT]),
        "us": {name: percentiles(values) for name, values in samples.items()},
        "added_us": rounded(samples.median_us(PREDICT) - samples.median_us(BARE)),
    }


def first_answers(bundle_folder: Path, threads: int, later: int) -> dict[str, Any]:
    """Seconds from the start of a process to its first answer: the first, and later ones.

    The first process finds an empty cache folder ($XDG_CACHE_HOME); the later ones find what it
    left there.
    """
    request = {"bundle": str(bundle_folder.resolve()), "threads": threads, "text": TEXT}
    starts = []
    with tempfile.TemporaryDirectory() as cache:
        for i in range(1 + later):
            say(f"start {i + 1}")
            found = child.run("benchmarks.latency.child", request, {"XDG_CACHE_HOME": cache})
            found["first_answer_s"] = found.pop("answered_s") - found.pop("started_s")
            starts.append(found)
    return {
        "first": {name: rounded(value, 3) for name, value in starts[0].items()},
        "later": {
            name: rounded(statistics.median(start[name] for start in starts[1:]), 3)
            for name in starts[0]
        },
        "later_starts": later,
    }
