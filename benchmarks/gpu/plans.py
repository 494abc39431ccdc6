"""The plan of a bundle: there already, or built now and timed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures.rounding import rounded
from benchmarks.gpu.context import Bench
from bitheads.engine.bundle import graph_sha256
from bitheads.engine.errors import BackendError, PlanError


def ensure_plan(bench: Bench, device: Any, rebuild: bool) -> dict[str, Any]:
    """Finds the plan that the engine will run, or builds it in a process of its own, timed."""
    from benchmarks.gpu.contenders import require
    from bitheads.engine.sessions.tensorrt import find_fitting_plan

    require("tensorrt")
    graph = graph_sha256(bench.manifest.artifacts)
    seconds = None
    if not rebuild:
        try:
            find_fitting_plan(bench.bundle, graph, device)
        except PlanError:
            rebuild = True
    if rebuild:
        seconds = build(bench.bundle)
    _, plan = find_fitting_plan(bench.bundle, graph, device)
    return {
        "flavour": plan.info.flavour,
        "version": plan.info.version,
        "mb": rounded(plan.info.plan_bytes / 1e6),
        "profiles": [str(profile) for profile in plan.info.profiles],
        "build_s": None if seconds is None else rounded(seconds),
        "file": plan.path.name,
    }


def build(bundle_folder: Path) -> float:
    """Seconds that `bitheads plan` takes; its own start is part of it."""
    command = [sys.executable, "-m", "bitheads", "plan", "--bundle", str(bundle_folder), "--json"]
    started_s = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BackendError(
            f"{' '.join(command[1:])} failed with code {done.returncode}, see above."
        )
    json.loads(done.stdout)
    return time.perf_counter() - started_s
