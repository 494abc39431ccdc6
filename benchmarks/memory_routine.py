"""Peak memory of encoding few and many texts of mixed lengths, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import child, record, texts
from benchmarks.cpu_options import MEMORY_TEXTS, THREADS
from bitheads.engine import bundle
from bitheads.engine.errors import InputError

COMMAND = "python -m benchmarks memory"
FEW = 1000
WARM, WARM_ROUNDS = "few, five times", 5
"""What the many are compared with: memory that is taken once and kept is not growth."""

QUICK_FEW, QUICK_MANY = 20, 60


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/memory.json; a quick run's figures mean nothing and only print.

    Raises BundleError or InputError, before anything is measured, for what is missing.
    """
    if options.threads < 1:
        raise InputError(f"--threads: got {options.threads}, expected at least 1.")
    if options.texts < FEW:
        raise InputError(f"--texts: got {options.texts}, expected at least {FEW}.")
    bundle.read_manifest(options.bundle)
    few, many = (QUICK_FEW, QUICK_MANY) if options.quick else (FEW, options.texts)
    result = {"quick": options.quick, **measure(options, few, many)}
    if options.quick:
        record.show("memory", _command(options), result)
    else:
        record.write("memory", _command(options), result)


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
            print(f"{name}: {count:,} texts", file=sys.stderr, flush=True)
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
            answer = child.run("benchmarks.memory_child", request)
            del answer["started_s"]
            runs[name] = {"texts_a_call": texts_a_call or count, **answer}
    return {
        "threads": options.threads,
        "data": "drawn from test files" if options.data else "shipped sentences, joined",
        "runs": runs,
        "times_warm": {
            name: round(answer["peak_rss_bytes"] / runs[WARM]["peak_rss_bytes"], 3)
            for name, answer in runs.items()
        },
    }


def _command(options: argparse.Namespace) -> str:
    words = [COMMAND]
    words += ["--quick"] if options.quick else []
    words += ["--data DIR"] if options.data else []
    words += [f"--texts {options.texts}"] if options.texts != MEMORY_TEXTS else []
    words += [f"--threads {options.threads}"] if options.threads != THREADS else []
    return " ".join(words)
