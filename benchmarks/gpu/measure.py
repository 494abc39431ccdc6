"""Every measurement that needs a GPU, in one report that also names what it had to leave out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.gpu import accuracy, head_kernels, kernels, machine, plans, report, speed
from benchmarks.gpu.contenders import CONTENDERS
from benchmarks.gpu.context import FULL, QUICK, Bench, Gpu, open_gpu
from benchmarks.gpu.options import PARTS, SCRATCH
from benchmarks.gpu.outcome import attempt, failures
from benchmarks.options import command
from bitheads.engine.errors import BackendError

REPORT = Path("build/gpu-report.md")


def run(options: argparse.Namespace) -> None:
    """Measures, stores results/gpu.json and writes the report.

    Raises BackendError without a GPU, and at the end if a measurement failed: what is missing is
    no failure.
    """
    parts = tuple(options.only or PARTS)
    repeats = QUICK if options.quick else FULL
    with open_gpu() as gpu:
        result: dict[str, Any] = {
            "machine": machine.describe(gpu.device),
            "quick": options.quick,
            "encoders": {},
        }
        benches = {"": Bench(options.bundle, options.encoder, repeats)}
        name = benches[""].manifest.spec.encoder  # an unreadable bundle ends the run at once
        benches = {name: benches[""]}
        if options.roberta_large:
            seeded = attempt("a bundle of RoBERTa-large's shape", _seeded)
            if seeded["status"] == "measured":
                bundle, encoder = seeded["result"]
                benches["RoBERTa-large, seeded weights"] = Bench(bundle, encoder, repeats)
            else:
                result["encoders"]["RoBERTa-large, seeded weights"] = {"plan": seeded}
        for name, bench in benches.items():
            measure(
                gpu, bench, parts, options.rebuild_plan, result["encoders"].setdefault(name, {})
            )
        if "kernels" in parts:
            result["kernels"] = attempt(
                "pool_and_pack beside a copy", kernels.pool_and_pack, gpu, repeats.kernel
            )
    stored = record.write("gpu", command("gpu", options), result)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report.render(record.read("gpu")), encoding="utf-8")
    print(f"wrote {REPORT} and {stored.name}", file=sys.stderr)
    if failed := failures(result):
        raise BackendError(
            f"{len(failed)} measurements failed:\n  " + "\n  ".join(failed) + f"\n{stored} has the "
            "tracebacks. Report it with that file; --only runs parts of it again."
        )


def measure(
    gpu: Gpu, bench: Bench, parts: tuple[str, ...], rebuild_plan: bool, into: dict[str, Any]
) -> None:
    """The parts that belong to an encoder, in the order of PARTS."""
    steps: dict[str, Callable[[], Any]] = {
        "plan": lambda: plans.ensure_plan(bench, gpu.device, rebuild_plan),
        "accuracy": lambda: accuracy.compare(bench, CONTENDERS),
        "share": lambda: kernels.share_of_encoder(bench),
        "heads": lambda: head_kernels.time_heads(gpu, bench),
    }
    for part in parts:
        if part == "speed":
            into[part] = speed.compare(bench, CONTENDERS)
        elif part in steps:
            into[part] = attempt(part, steps[part])


def _seeded() -> tuple[Path, str]:
    from benchmarks.gpu.seeded import make_seeded_bundle

    return make_seeded_bundle(SCRATCH, say=lambda line: print(f"  {line}", file=sys.stderr))
