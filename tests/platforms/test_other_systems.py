"""What is for other systems and processors is compiled for them, by Zig's Clang and its headers.

Nothing of it runs here, and nothing is linked. Other libraries' headers are of this machine.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from marks import long

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="needs Zig: make platforms"
)

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=undefined"]
LEVELS = {
    "x86_64": ["-DBITHEADS_X86_LEVELS", "-DBITHEADS_AVX2_VNNI"],
    "aarch64": ["-DBITHEADS_ARM_LEVELS"],
}
OWN_FLAGS = {
    "_avx2": ["-mavx2", "-mf16c"],
    "_avx2_vnni": ["-mavx2", "-mf16c", "-mavxvnni"],
    "_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mf16c"],
    "_avx512_vnni": [
        *["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mf16c"],
        "-mavx512vnni",
    ],
    "_neon": [],
    "_neon_dotprod": ["-mcpu=generic+dotprod"],
}
"""End of a file's name -> what CMakeLists.txt compiles it with, in Zig's words."""

OF_THE_BUILD = ['-DBITHEADS_VERSION="0"', '-DBITHEADS_DEFAULT_TOKENIZERS_LIBRARY="library"']
SYSTEM_HEADERS = ("nlohmann", "openssl")
"""Of this machine's packages; the rest of /usr/include is another system's."""


def level_of(source: Path) -> str:
    """The longest of OWN_FLAGS that a file's name ends with, or nothing."""
    return max((end for end in OWN_FLAGS if source.stem.endswith(end)), key=len, default="")


def compile_all(target: str, sources: Sequence[Path], flags: Sequence[str], folder: Path) -> None:
    """Raises AssertionError with what the compiler says."""

    cache = str(ROOT / "build" / "zig")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}

    def one(source: Path) -> str:
        command = [sys.executable, "-m", "ziglang", "c++", "-target", target, *FLAGS]
        command += [*LEVELS[target.split("-")[0]], *OWN_FLAGS.get(level_of(source), [])]
        command += [*flags, "-c", str(source), "-o", str(folder / f"{source.stem}.o")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        return "" if done.returncode == 0 else f"{source.name}:\n{done.stderr[-2000:]}"

    with ThreadPoolExecutor(2) as pool:
        wrong = [said for said in pool.map(one, sources) if said]
    assert not wrong, "\n".join(wrong)
    assert len(list(folder.glob("*.o"))) == len(sources)


@pytest.mark.parametrize("target", ["aarch64-macos", *long("x86_64-macos", "x86_64-windows-gnu")])
def test_kernels(target: str, tmp_path: Path) -> None:
    x86 = target.startswith("x86_64")
    others = "_neon" if x86 else "_avx"
    sources = [
        source
        for source in sorted((ROOT / "kernels" / "cpu").glob("*.cpp"))
        if others not in source.stem
    ]
    assert any(level_of(source) for source in sources)
    flags = ["-Ikernels/include", "-Ikernels", "-Ikernels/cpu", "-Ikernels/cuda"]
    compile_all(target, sources, flags, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("target", ["aarch64-macos", "aarch64-linux-gnu"])
def test_the_host(target: str, tmp_path: Path) -> None:
    openvino = importlib.util.find_spec("openvino")
    assert openvino is not None
    assert openvino.origin is not None
    headers = tmp_path / "headers"
    headers.mkdir()
    for folder in (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu")):
        for name in SYSTEM_HEADERS:
            if (folder / name).is_dir():
                place = headers / folder.name / name
                place.parent.mkdir(exist_ok=True)
                place.symlink_to(folder / name)
    flags = ["-Ihost/include", "-Ihost/src", "-Ikernels/include", "-Ikernels", *OF_THE_BUILD]
    for folder in (Path(openvino.origin).parent / "include", *headers.iterdir()):
        flags += ["-isystem", str(folder)]
    sources = sorted((ROOT / "host" / "src").rglob("*.cpp"))
    # Of two folders that have files of one name.
    for part in sorted({source.parent for source in sources}):
        objects = tmp_path / part.name
        objects.mkdir()
        compile_all(target, [one for one in sources if one.parent == part], flags, objects)
