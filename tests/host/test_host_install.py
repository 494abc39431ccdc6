"""Installed, the library is found by CMake and pkg-config from elsewhere, and used from C."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import openvino.utils
import pytest
from host_build import ROOT, configure, run, tool

from benchmarks.contenders.host_library import HostEngine
from bitheads.engine.bundle import read_manifest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def installed(host_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("installed")
    run(tool("cmake"), "--install", host_build, "--prefix", prefix)
    return prefix


@pytest.fixture
def expected(host_engine: HostEngine, host_bundle: Path) -> str:
    """What tests/host/use_from_c.c prints."""
    answer = host_engine.predict(["The tide was out."], ["attends"])["attends"]
    spec = read_manifest(host_bundle).spec
    return f"{spec.id} openvino fp32\nattends {answer.labels[1]} {answer.logits[0, 1]:.9g}\n"


def test_what_is_installed(installed: Path) -> None:
    files = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    files = {name.replace("lib64/", "lib/") for name in files}
    assert {"include/bitheads/bitheads.h", "include/bitheads/bitheads.hpp"} <= files
    assert {"lib/libbitheads.so", "lib/pkgconfig/bitheads.pc"} <= files
    assert "lib/cmake/bitheads/bitheadsConfig.cmake" in files
    assert not [name for name in files if "nlohmann" in name or "kernels" in name]


def test_cmake_finds_it(installed: Path, host_bundle: Path, tmp_path: Path, expected: str) -> None:
    configure(HERE / "project", tmp_path, f"-DCMAKE_PREFIX_PATH={installed}", f"-DSOURCES={ROOT}")
    run(tool("cmake"), "--build", tmp_path)
    assert run(tmp_path / "use_from_c", host_bundle, "attends") == expected
    done = subprocess.run(
        [tmp_path / "embed", "/no/bundle"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bundle /no/bundle: no file")


def commands(section: str) -> list[str]:
    """What docs/cpp.md says to type there, in order; a command of two lines is one."""
    text = (ROOT / "docs/cpp.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return "\n".join(lines).replace("\\\n", "").splitlines()


def test_the_commands_that_are_documented(
    host_build: Path, host_bundle: Path, tmp_path: Path, expected: str
) -> None:
    """As they stand there, with an environment that says nothing of where libraries are."""
    prefix = tmp_path / "prefix"
    build = [line for line in commands("Build") if line.startswith("cmake ")]
    use = [line for line in commands("Use") if line.startswith(("cp ", "export ", "cc "))]
    assert (len(build), len(use)) == (3, 3)
    script = "\n".join(["set -e", f"cd {ROOT}", *build, *use]).replace("PREFIX", str(prefix))
    script = script.replace("you.c", f"{tmp_path}/you.c").replace("-o you", f"-o {tmp_path}/you")
    plain = plain_environment()
    run("sh", "-c", script, environment=plain)
    assert run(tmp_path / "you", host_bundle, "attends", environment=plain) == expected


def plain_environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "LD_LIBRARY_PATH": "", "PKG_CONFIG_PATH": "", "CPATH": ""}


def test_pkg_config_finds_it(installed: Path, tmp_path: Path) -> None:
    (folder,) = installed.rglob("pkgconfig")
    found = {"PKG_CONFIG_PATH": str(folder)}
    assert run("pkg-config", "--modversion", "bitheads", environment=found) == "0.1.0\n"
    flags = run("pkg-config", "--cflags", "--libs", "bitheads", environment=found).split()
    strict = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
    run("cc", *strict, HERE / "use_from_c.c", "-o", tmp_path / "use_from_c", *flags)
    shown = run("readelf", "-d", tmp_path / "use_from_c")
    assert "libopenvino" not in shown  # no concern of programs
    (run_path,) = [line for line in shown.splitlines() if "(RUNPATH)" in line or "(RPATH)" in line]
    assert Path(run_path.split("[")[1].rstrip("]")).resolve() == folder.parent.resolve()
    own = run("readelf", "-d", folder.parent / "libbitheads.so")
    (own_path,) = [line for line in own.splitlines() if "(RUNPATH)" in line or "(RPATH)" in line]
    libraries = Path(openvino.utils.get_cmake_path()).parent / "libs"
    assert {"$ORIGIN", str(libraries)} <= set(own_path.split("[")[1].rstrip("]").split(":"))


def test_only_its_own_names_are_exported(host_build: Path) -> None:
    """Another OpenSSL, JSON or kernels in the process must not meet these."""
    shown = run("nm", "-DC", "--defined-only", host_build / "libbitheads.so")
    names = [line.split(maxsplit=2)[2] for line in shown.splitlines()]
    functions = [
        name for line, name in zip(shown.splitlines(), names, strict=True) if " T " in line
    ]
    assert functions
    for name in functions:
        assert name.startswith(("bitheads_", "bitheads::", "_init", "_fini")), name
    assert not [name for name in names if "nlohmann" in name or name.startswith("bh_")]
