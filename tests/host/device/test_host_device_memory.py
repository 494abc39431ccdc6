"""The C++ host's device side under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

from pathlib import Path

import host_kernels
import pytest
import software_driver
from host_build import build, run
from marks import long
from pooling_cases import with_embedding
from software_driver import SoftwareDriverError
from test_host_fuzz import sanitized


def programs(sanitizers: str, host_build: Path) -> tuple[Path, Path]:
    """on_device, and the folder of its plugin."""
    if sanitizers:
        folder = sanitized("on_device").parent
        sanitized("formula_sessions")
    else:
        folder = host_build
        build(folder, "on_device")
        build(folder, "formula_sessions")
    return folder / "on_device", folder / "test-plugins"


@pytest.mark.parametrize("sanitizers", ["", *long("address,undefined")], ids=["plain", "sanitized"])
def test_nothing_is_used_that_has_gone(
    sanitizers: str, host_build: Path, host_bundle: Path, device_code_file: Path, tmp_path: Path
) -> None:
    """In any order, in parts and whole, and wherever the driver fails: no stray access, no leak."""
    try:
        driver = software_driver.build(sanitizers)
    except SoftwareDriverError as error:
        pytest.skip(str(error))
    kernels = host_kernels.compile_library(sanitizers)
    program, plugins = programs(sanitizers, host_build)
    bundle = tmp_path / "bundle"
    with_embedding(host_bundle, bundle, ("mean", "max"))
    shown = run(program, bundle, plugins, device_code_file, driver, kernels)
    compared, failures, left = shown.splitlines()
    assert compared == "31 compared"
    assert int(failures.split()[0]) > 30
    assert left == "left: "
