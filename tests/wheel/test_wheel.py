"""The wheel that people install: what is in it, and that it works where an `engine.py` lies."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import bitheads

ROOT = Path(__file__).parent.parent.parent


def run(command: list[str | Path], folder: Path) -> str:
    """Standard output of a command that must succeed, run with no path of this clone."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # Where auditwheel's tools are.
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip builds it, for this machine."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """For every Linux whose libraries are as new as this one's: auditwheel says which."""
    repaired = built.parent / "repaired"
    run([sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", repaired, built], ROOT)
    (found,) = repaired.glob("*.whl")
    return found


def test_it_is_for_other_machines_too(wheel: Path, tmp_path: Path) -> None:
    """It brings no library along and links those alone that every Linux has."""
    tag = re.search(r"manylinux_2_(\d+)_", wheel.name)
    assert tag is not None
    names = zipfile.ZipFile(wheel).namelist()
    assert not any(".libs/" in name for name in names)
    shown = run([sys.executable, "-m", "auditwheel", "show", wheel], tmp_path)
    assert f'"manylinux_2_{tag[1]}_' in shown.replace("\n", " ")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment in which the wheel is, and nothing of this clone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    run([folder / "bin/python", "-m", "pip", "install", "--quiet", wheel], folder)
    return folder / "bin"


@pytest.fixture
def shadowed(tmp_path: Path) -> Path:
    """A user's folder, whose modules have the names of ours."""
    for name in ("engine", "export", "training"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    return tmp_path


def test_one_name_is_put_into_site_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    information = f"bitheads-{bitheads.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"bitheads", information}
    assert sum("/_kernels." in name and name.endswith(".so") for name in names) == 1
    for needed in (
        "bitheads/py.typed",
        "bitheads/engine/_kernels.pyi",
        "bitheads/engine/data/demo.tsv",
        "bitheads/engine/serve/page.html",
        "bitheads/export/data/sentences.txt",
        "bitheads/training/configs/multitask_minilm.toml",
        "bitheads/training/data/background.md",
        "bitheads/training/data/background.txt",
    ):
        assert needed in names


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 processor")
def test_it_has_the_dot_products_of_avx_vnni(wheel: Path, tmp_path: Path) -> None:
    """Tests of that level run AVX-512's form of the instruction; this is the one that it is for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if "/_kernels." in one and ".so" in one)
        module = archive.extract(name, tmp_path)
    listed = run(["objdump", "--disassemble", "--no-show-raw-insn", module], tmp_path)
    found = re.findall(r"\{vex\} vpdpwssd .*%([xyz])mm", listed)
    assert set(found) == {"y"}


def test_commands_and_predictions(installed: Path, shadowed: Path, minilm_bundle: Path) -> None:
    assert "usage: bitheads COMMAND" in run([installed / "bitheads", "--help"], shadowed)
    shown = run([installed / "python", "-m", "bitheads", "--version"], shadowed)
    assert shown == f"bitheads {bitheads.__version__}\n"
    program = """
import sys
from bitheads import Engine
engine = Engine.load(sys.argv[1])
print(*engine.predict(["What a lovely film.", "Shares fell 8 percent."])["sentiment"].top)
"""
    found = run([installed / "python", "-c", program, minilm_bundle], shadowed)
    assert found == "pos neg\n"
    asked = [installed / "bitheads", "predict", "--bundle", minilm_bundle, "--demo"]
    assert "sentiment" in run(asked, shadowed)


@pytest.mark.long
def test_the_source_distribution_makes_the_same_wheel(
    built: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Links in the tree are folders in it."""
    program = """
import sys
from scikit_build_core.build import build_sdist
print(build_sdist(sys.argv[1]))
"""
    tools = tmp_path / "tools"
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    run([*pip, "--target", tools, "scikit-build-core>=0.10"], tmp_path)
    path = f"import sys; sys.path.insert(0, {str(tools)!r})\n"
    run([sys.executable, "-c", path + program, tmp_path], ROOT)
    (archive,) = tmp_path.glob("*.tar.gz")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    run(["tar", "--extract", "--file", archive], unpacked)  # tarfile's way differs by Python
    (source,) = unpacked.iterdir()
    made = tmp_path / "made"
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", made, source],
        tmp_path,
    )
    (again,) = made.glob("*.whl")
    names = [sorted(zipfile.ZipFile(path).namelist()) for path in (built, again)]
    assert names[0] == names[1]
