"""Task heads: the native kernels beside torch, NumPy, the machine's peak and the encoder."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from benchmarks import record
from benchmarks.accuracy.tasks import require_data
from benchmarks.contenders import native_heads
from benchmarks.heads import accuracy, cases, encoders, loading, speed
from benchmarks.inputs.shapes import CLASSES, TEXT_TOKENS
from benchmarks.options import command, require_at_least
from bitheads.engine import bundle
from bitheads.engine.commands.command_line import say

NOTES = {
    "torch_usual": "features are float32 already: unpacking them is not counted",
    "torch_folded": "codes are float32 already; torch_folded_unpacking starts from packed codes",
    "percent_of_peak": "16-bit multiply-adds of a text and task over what the level does in a "
    "loop of dot products from registers; pooled codes count as if they were multiplied, so where "
    "signs are pooled by table look-ups it may pass what dot products would do",
}


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/heads.json; a quick run's figures mean nothing and only print.

    Raises BundleError or InputError, before anything is measured, for a bundle or data that are
    missing.
    """
    result = measure(options)
    record.keep("heads", command("heads", options), result, options.quick)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All parts, one after another; torch has one thread."""
    require_at_least(1, options, "threads")
    settings = cases.QUICK if options.quick else cases.FULL
    if not options.quick:
        bundle.read_manifest(options.bundle)
        if options.data is not None:
            require_data(options.data, "test")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(settings, options)
    finally:
        torch.set_num_threads(threads_before)


def _measure(settings: cases.Settings, options: argparse.Namespace) -> dict[str, Any]:
    level = native_heads.fastest_level()
    result: dict[str, Any] = {
        "quick": options.quick,
        "text_tokens": TEXT_TOKENS,
        "classes": CLASSES,
        "level": level,
        "notes": NOTES,
        "peers": {
            "most_tasks": settings.peer_tasks,
            "torch_usual": {"texts": settings.usual_texts, "most_tasks": settings.usual_tasks},
            "serial": {"texts": settings.serial_texts, "most_tasks": 1},
        },
        **speed.measure(settings, options.threads, say),
    }
    say("loading heads")
    result["loading"] = loading.measure(settings)
    if not options.skip_encoder:
        result["encoders"] = encoders.measure(settings, say)
        result["costs"] = encoders.costs(result["encoders"], result["cells"], level)
    say("accuracy")
    result["accuracy"] = {"random heads": accuracy.random(settings)}
    if not options.quick:
        result["accuracy"]["texts"] = "test files" if options.data else "the demo's"
        result["accuracy"]["shipped heads"] = accuracy.shipped(options.bundle, options.data, say)
    return result
