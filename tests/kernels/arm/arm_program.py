"""`run_calls.cpp` and the kernels, compiled for 64-bit ARM on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def build_program(folder: Path) -> Path:
    """The program, built in an empty folder."""
    # CMake and Ninja are those of this environment; the system need have none.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    configure = (
        "cmake", "-S", str(HERE), "-B", str(folder), "-G", "Ninja", "-DBITHEADS_WERROR=ON",
        f"-DCMAKE_TOOLCHAIN_FILE={HERE / 'aarch64.cmake'}",
    )  # fmt: skip
    for command in (configure, ("cmake", "--build", str(folder), "--parallel", "2")):
        done = subprocess.run(
            command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return folder / "run_calls"
