"""Builds the plugins and what they are tested with, and drives one by run_plugin.cpp."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host_build import ROOT, configure, run, tool
from plugin_headers import (
    HEADERS,
    cuda_headers,
    onnxruntime_headers,
    rtx_headers,
    tensorrt_headers,
    write_stubs,
)


def build_plugins(sanitizers: str = "") -> Path:
    """All three, their driver, and the libraries that stand in for ONNX Runtime and TensorRT.

    Args:
        sanitizers: as -fsanitize= takes them; each list has a folder of its own.

    Returns the build folder.
    """
    folder = ROOT / "build" / "-".join(["plugins", *sanitizers.split(",")]).rstrip("-")
    for name, headers in (("stubs", tensorrt_headers()), ("stubs_rtx", rtx_headers())):
        write_stubs(headers, HEADERS / name)
    given = {
        "WERROR": "ON",
        "PLUGIN_TESTS": "ON",
        "ONNXRUNTIME_INCLUDE_DIR": onnxruntime_headers(),
        "TENSORRT_INCLUDE_DIR": tensorrt_headers(),
        "TENSORRT_RTX_INCLUDE_DIR": rtx_headers(),
        "CUDA_INCLUDE_DIR": cuda_headers(),
        "STUBS_DIR": HEADERS,
    }
    if sanitizers:
        given["SANITIZE"] = sanitizers
    defined = (f"-DBITHEADS_{key}={value}" for key, value in given.items())
    build_type = "Debug" if sanitizers else "Release"
    configure(ROOT / "host" / "plugins", folder, *defined, f"-DCMAKE_BUILD_TYPE={build_type}")
    run(tool("cmake"), "--build", folder)
    return folder


@dataclass(frozen=True)
class Driver:
    """run_plugin with one plugin.

    Attributes:
        folder: from build_plugins.
        plugin: such as "onnxruntime".
    """

    folder: Path
    plugin: str

    def obey(self, commands: Sequence[str], environment: Mapping[str, object] = {}) -> list[str]:
        """The answer to each command; the process must end well, and print nothing else."""
        done = subprocess.run(
            [self.folder / "run_plugin", self.folder / f"libbitheads_{self.plugin}.so"],
            input="\n".join(commands) + "\n",
            env={**os.environ, **{key: str(value) for key, value in environment.items()}},
            capture_output=True,
            text=True,
            check=False,
        )
        answers = done.stdout.splitlines()
        assert (done.returncode, done.stderr) == (0, ""), (answers, done.stderr)
        assert len(answers) == len(commands), answers
        return answers
