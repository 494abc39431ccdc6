"""NVIDIA's compute-sanitizer over every kernel: stray accesses, races, uninitialized reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOUND = 86  # an exit code that neither Python nor a signal gives


def find_sanitizer() -> str | None:
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=str(toolkit))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_the_kernels_are_clean(gpu: object, tool: str) -> None:
    sanitizer = find_sanitizer()
    if sanitizer is None:
        pytest.skip("no compute-sanitizer on PATH: it comes with the CUDA toolkit")
    folders = [str(ROOT / part) for part in ("", "tests", "tests/gpu")]
    python_path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sanitizer, "--tool", tool, f"--error-exitcode={FOUND}", sys.executable, "-m", "short_run"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, f"{tool}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert "every kernel ran" in done.stdout
