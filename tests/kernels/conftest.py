"""Kernel tests run on the installed extension, or on the one BITHEADS_KERNELS_PATH names."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys

import pytest

if path := os.environ.get("BITHEADS_KERNELS_PATH"):
    # Before anything imports `engine`, whose modules would load the installed one.
    assert "engine._kernels" not in sys.modules, "engine._kernels is already loaded"
    loader = importlib.machinery.ExtensionFileLoader("engine._kernels", path)
    spec = importlib.util.spec_from_file_location("engine._kernels", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules["engine._kernels"] = module

from bitheads.engine import _kernels


@pytest.fixture(params=["serial", "avx2", "avx512", "avx512_vnni"])
def level(request: pytest.FixtureRequest) -> str:
    """Each level this machine can run."""
    if request.param not in _kernels.supported_levels():
        pytest.skip(f"this machine or build has no {request.param}")
    return request.param
