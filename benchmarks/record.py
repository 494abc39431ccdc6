"""Stored results: what was measured, where, with which versions, by which command."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from bitheads import __version__, kernels_info
from bitheads.engine.process.cores import allowed_processors

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "numpy",
    "openvino",
    "onnxruntime",
    "torch",
    "transformers",
    "tokenizers",
    "pyarrow",
    "tensorrt-rtx-cu13",
)


def write(name: str, command: str, result: Mapping[str, Any]) -> Path:
    """Stores a routine's result as results/<name>.json and prints it as the last line."""
    record = _record(name, command, result)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(RESULTS.parent.parent)}", file=sys.stderr)
    print(json.dumps(record))
    return path


def show(name: str, command: str, result: Mapping[str, Any]) -> None:
    """Prints what `write` would store, of a run that is no measurement."""
    print("nothing was stored", file=sys.stderr)
    print(json.dumps(_record(name, command, result)))


def keep(name: str, command: str, result: Mapping[str, Any], quick: bool) -> None:
    """`write`, or `show` if the run was quick: its figures mean nothing."""
    if quick:
        show(name, command, result)
    else:
        write(name, command, result)


def read(name: str) -> dict[str, Any]:
    """A stored result. Raises FileNotFoundError if the routine never ran."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return record


def exists(name: str) -> bool:
    """Whether a routine ever stored a result."""
    return (RESULTS / f"{name}.json").is_file()


def _record(name: str, command: str, result: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "command": command, **_machine(), "result": result}


def _machine() -> dict[str, Any]:
    kernels = kernels_info()
    return {
        "date": date.today().isoformat(),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": _cores(),
        "python": platform.python_version(),
        "versions": {"bitheads": __version__, **versions(PACKAGES)},
        "kernel_level": kernels.active_level,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        except OSError:  # no git, such as on a machine that was handed a copy
            return ""
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "none") + (
        "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    )


def _cpu() -> str:
    flags = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"}
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    present = flags & set(fields.get("flags", "").split())
    model = f"family {fields.get('cpu family')} model {fields.get('model')}"
    return f"{fields.get('model name', platform.machine())} ({model}; {', '.join(sorted(present))})"


def _cores() -> int:
    return len(allowed_processors())
