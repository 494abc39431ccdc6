"""Kernel tests run on the installed extension, or on the one BITHEADS_KERNELS_PATH names."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import platform
import sys

import pytest

if path := os.environ.get("BITHEADS_KERNELS_PATH"):
    # Before anything imports `bitheads.engine`, whose modules would load the installed one.
    name = "bitheads.engine._kernels"
    assert name not in sys.modules, f"{name} is already loaded"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[name] = module

from bitheads.engine import _kernels

IS_ARM = platform.machine() in ("aarch64", "arm64")
FAMILY_LEVELS = [
    name for name in _kernels.levels() if name == "serial" or name.startswith("neon") == IS_ARM
]
"""Those of this family of processors. For the others' there is tests/kernels/arm."""


@pytest.fixture(params=FAMILY_LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    """Each level this machine can run."""
    if request.param not in _kernels.supported_levels():
        pytest.skip(f"this machine or build has no {request.param}")
    return request.param
