"""The level is chosen once, from the machine or from BITHEADS_KERNEL_LEVEL, never silently."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bitheads.engine import _kernels
from bitheads.engine.features import pack

SPEC = Path(__file__).parents[2] / "kernels/SPEC.md"
# Loads the very extension under test, and not the rest of the package.
SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_kernels", sys.argv[1])
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)
try:
    print(kernels.active_level())
except ValueError as error:
    print("ValueError", error)
"""
ALL_LEVELS = _kernels.levels()


def _active_level(value: str | None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "BITHEADS_KERNEL_LEVEL"}
    if value is not None:
        environment["BITHEADS_KERNEL_LEVEL"] = value
    command = [sys.executable, "-c", SCRIPT, str(_kernels.__file__)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_the_list_of_levels() -> None:
    """Slowest first; SPEC.md says what each of them needs."""
    assert ALL_LEVELS[0] == "serial"
    section = SPEC.read_text(encoding="utf-8").split("## Levels")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == ALL_LEVELS


def test_forced_level_is_the_active_one(level: str) -> None:
    assert _active_level(level) == level


@pytest.mark.parametrize("value", [None, ""])
def test_fastest_level_by_default(value: str | None) -> None:
    assert _active_level(value) == _kernels.supported_levels()[-1]


def test_unknown_level_says_what_to_do() -> None:
    message = _active_level("sse9")
    assert message.startswith("ValueError BITHEADS_KERNEL_LEVEL: got 'sse9', expected a level")
    assert ", ".join(_kernels.supported_levels()) in message
    assert "unset it" in message


def test_unsupported_level_is_an_error() -> None:
    # No processor is of two families.
    missing = next(name for name in ALL_LEVELS if name not in _kernels.supported_levels())
    message = _active_level(missing)
    assert message.startswith(f"ValueError BITHEADS_KERNEL_LEVEL: got '{missing}', expected")
    assert "this machine can run" in message
    with pytest.raises(ValueError, match=f"level: got '{missing}'"):
        _pack_nothing(missing)


def test_unknown_level_argument() -> None:
    with pytest.raises(ValueError, match="level: got 'sse9', expected active, or one"):
        _pack_nothing("sse9")


def _pack_nothing(level: str) -> None:
    none = np.zeros(0, np.int64)
    layers = [np.zeros((0, 0, 8), np.float32)]
    codes = np.zeros((0, 1), np.uint8)
    pack.pool_and_pack(layers, none, none, codes, quantization="sign", level=level)


def test_kernels_info() -> None:
    info = pack.kernels_info()
    assert info.active_level in info.supported_levels
    assert info.supported_levels[0] == "serial"
    assert info.abi_version == 7
