"""The pycuda that `make device` builds loads NVIDIA's driver on a machine with a GPU."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from software_driver import SONAME


@pytest.fixture(scope="module")
def dynamic_section() -> str:
    """Of pycuda's extension module, as readelf shows it."""
    spec = importlib.util.find_spec("pycuda")
    if spec is None or spec.origin is None:
        pytest.skip("pycuda is not installed, type: make device")
    if shutil.which("readelf") is None:
        pytest.skip("no readelf: it comes with a compiler")
    (module,) = Path(spec.origin).parent.glob("_driver*.so")
    done = subprocess.run(
        ["readelf", "--dynamic", "--wide", str(module)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_driver_is_found_by_name_alone(dynamic_section: str) -> None:
    """No folder of this machine is remembered, and no library of a CUDA toolkit is asked for."""
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic_section))
    assert SONAME in needed
    assert not {name for name in needed if re.match(r"lib(cu|nv)", name)} - {SONAME}
    assert "RPATH" not in dynamic_section
    assert "RUNPATH" not in dynamic_section


def test_calls_that_an_older_driver_lacks_do_not_keep_it_from_loading(
    dynamic_section: str,
) -> None:
    """Functions are looked up when they are first called, not all at once."""
    assert "BIND_NOW" not in dynamic_section
    assert not re.search(r"\(FLAGS_1\).*\bNOW\b", dynamic_section)
