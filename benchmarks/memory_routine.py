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
from engine import bundle
from engine.errors import InputError

COMMAND = "python -m benchmarks memory"
FEW = 1000
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
    """Few texts in one call; many in one call, and in calls of `few` that keep nothing."""
    found = texts.mixed(options.data, many)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, count, texts_a_call in (
            ("few", few, None),
            ("many", many, None),
            ("many, call by call", many, few),
        ):
            print(f"{name}: {count:,} texts", file=sys.stderr, flush=True)
            file = Path(folder) / "texts.json"
            file.write_text(json.dumps(found[:count]), encoding="utf-8")
            request = {
                "bundle": str(options.bundle.resolve()),
                "texts": str(file),
                "threads": options.threads,
                "texts_a_call": texts_a_call,
            }
            answer = child.run("benchmarks.memory_child", request)
            del answer["started_s"]
            runs[name] = {"texts_a_call": texts_a_call or count, **answer}
    return {
        "threads": options.threads,
        "data": "drawn from test files" if options.data else "shipped sentences, joined",
        "runs": runs,
        "times_few": {
            name: round(answer["peak_rss_bytes"] / runs["few"]["peak_rss_bytes"], 3)
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
