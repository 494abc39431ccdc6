"""The CUDA kernels, compiled for the host once a session."""

from __future__ import annotations

import pytest
from host_kernels import HostKernels, build


@pytest.fixture(scope="session")
def host_kernels() -> HostKernels:
    return build()
