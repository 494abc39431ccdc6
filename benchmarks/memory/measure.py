"""Peak memory of encoding few and many texts of mixed lengths, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.inputs import texts
from benchmarks.options import command, require_at_least
from benchmarks.processes import child
from bitheads.engine import bundle
from bitheads.engine.commands.command_line import say

FEW = 1000
WARM, WARM_ROUNDS = "few, five times", 5
"""Run that the many are compared with: memory that is taken once and kept is not growth."""

QUICK_FEW, QUICK_MANY = 20, 60


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/memory.json; a quick run's figures mean nothing and only print.

    Raises BundleError or InputError, before anything is measured, for what is missing.
    """
    require_at_least(1, options, "threads")
    require_at_least(FEW, options, "texts")
    bundle.read_manifest(options.bundle)
    few, many = (QUICK_FEW, QUICK_MANY) if options.quick else (FEW, options.texts)
    result = {"quick": options.quick, **measure(options, few, many)}
    record.keep("memory", command("memory", options), result, options.quick)


def measure(options: argparse.Namespace, few: int, many: int) -> dict[str, Any]:
    """Few texts once and until warm; many in one call, and as a stream that keeps nothing."""
    found = texts.mixed(options.data, many)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, count, texts_a_call, rounds in (
            ("few", few, None, 1),
            (WARM, few, None, WARM_ROUNDS),
            ("many", many, None, 1),
            ("many, streamed", many, few, 1),
        ):
            say(f"{name}: {count:,} texts")
            file = Path(folder) / "texts.jsonl"
            lines = "".join(f"{json.dumps(text)}\n" for text in found[:count])
            file.write_text(lines, encoding="utf-8")
            request = {
                "bundle": str(options.bundle.resolve()),
                "texts": str(file),
                "threads": options.threads,
                "texts_a_call": texts_a_call,
                "rounds": rounds,
            }
            answer = child.run("benchmarks.memory.child", request)
            del answer["started_s"]
            runs[name] = {"texts_a_call": texts_a_call or count, **answer}
    return {
        "threads": options.threads,
        "data": texts.source_of(options.data),
        "runs": runs,
        "times_warm": {
            name: round(answer["peak_rss_bytes"] / runs[WARM]["peak_rss_bytes"], 3)
            for name, answer in runs.items()
        },
    }
