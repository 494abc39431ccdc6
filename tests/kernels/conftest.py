"""Kernel tests run on the installed extension, or on the one BITHEADS_KERNELS_PATH names."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
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


@pytest.fixture(params=_kernels.levels())
def level(request: pytest.FixtureRequest) -> str:
    """Each level this machine can run."""
    if request.param not in _kernels.supported_levels():
        pytest.skip(f"this machine or build has no {request.param}")
    return request.param
