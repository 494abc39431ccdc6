"""Building the host with CMake, and running what was built."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import openvino.utils

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "host"
TOOLS = Path(sys.executable).parent
MIN_AGREEMENT = 0.98
"""Ties of equal cost, of which a Unigram tokenizer this small has many, are broken another way."""


def run(*command: str | Path, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command,
        input=stdin,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tool(name: str) -> str:
    """The one pip installed, or the system's."""
    return str(TOOLS / name) if (TOOLS / name).exists() else name


def configure(source: Path, folder: Path, *options: str) -> None:
    run(
        tool("cmake"),
        *("-S", source, "-B", folder, "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        *options,
    )


def build(folder: Path, target: str, *options: str) -> None:
    """Configures the host against pip's OpenVINO, and builds."""
    openvino_dir = openvino.utils.get_cmake_path()
    options = ("-DBITHEADS_WERROR=ON", f"-DOpenVINO_DIR={openvino_dir}", *options)
    configure(ROOT / "host", folder, *options)
    run(tool("cmake"), "--build", folder, "--target", target)
