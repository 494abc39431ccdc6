"""The headers that plugins are compiled with in tests: a script that puts them into build/headers.

Users have their own. Here ONNX Runtime's is Debian's, unpacked from a package that is not
installed; TensorRT's and CUDA's come in wheels (plugin_headers.txt). `make host` runs it first, as
tests need no network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADERS = ROOT / "build" / "headers"
SUITE = "trixie"
"""Of Debian: the first that has ONNX Runtime 1.21."""

PACKAGE = "libonnxruntime-dev"
VARIABLE = "BITHEADS_ONNXRUNTIME_INCLUDE_DIR"

RTX = {
    "NvInferVersion.h": [
        (
            "#define NV_TENSORRT_LWS_MAJOR 0",
            "#define TRT_MAJOR_RTX 1\n#define TRT_MINOR_RTX 4\n#define NV_TENSORRT_LWS_MAJOR 0",
        ),
        ("NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE", "NV_TENSORRT_MAJOR TRT_MAJOR_RTX"),
        ("NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE", "NV_TENSORRT_MINOR TRT_MINOR_RTX"),
    ],
    "NvInferImpl.h": [
        (
            "virtual IRuntimeConfig* getPImpl() noexcept = 0;",
            "virtual IRuntimeConfig* getPImpl() noexcept = 0;\n"
            "    virtual bool setCudaGraphStrategy(CudaGraphStrategy strategy) noexcept = 0;",
        ),
        ("namespace apiv\n{", "enum class CudaGraphStrategy : int32_t;\nnamespace apiv\n{"),
    ],
    "NvInferRuntime.h": [
        (
            "class IRuntimeConfig : public INoCopy\n{\npublic:",
            "enum class CudaGraphStrategy : int32_t { kDISABLED = 0, kWHOLE_GRAPH_CAPTURE = 1 };\n"
            "class IRuntimeConfig : public INoCopy\n{\npublic:\n"
            "    bool setCudaGraphStrategy(CudaGraphStrategy strategy) noexcept\n"
            "    {\n        return mImpl->setCudaGraphStrategy(strategy);\n    }",
        ),
    ],
}
"""What TensorRT-RTX's headers have beside TensorRT's, of what the plugin looks for."""


def onnxruntime_headers() -> Path:
    """The folder of onnxruntime_c_api.h."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else _fetched("onnxruntime/usr/include/onnxruntime")


def cuda_headers() -> Path:
    """The folder of cuda_runtime_api.h."""
    return _fetched("wheels/nvidia/cu13/include")


def tensorrt_headers() -> Path:
    """The folder of TensorRT's NvInferRuntime.h."""
    return _fetched("wheels/kernel_lens/include/tensorrt")


def rtx_headers() -> Path:
    """TensorRT's headers, with what TensorRT-RTX's have beside them: a stand-in for those."""
    folder = HEADERS / "tensorrt_rtx"
    for path in tensorrt_headers().glob("*.h"):
        text = path.read_text(encoding="utf-8")
        for old, new in RTX.get(path.name, []):
            assert text.count(old) == 1, (path, old)
            text = text.replace(old, new)
        _write_changed(folder / path.name, text)
    return folder


STUBBED = ("VRuntime", "VCudaEngine", "VExecutionContext", "VRuntimeConfig")


def write_stubs(headers: Path, folder: Path) -> None:
    """Writes nvinfer_stubs.h: the interfaces of the headers, each function of which aborts."""
    text = (headers / "NvInferImpl.h").read_text(encoding="utf-8")
    text = re.sub(r"#if ENABLE_\w+\n.*?#endif[^\n]*\n", "", text, flags=re.DOTALL)
    lines = [
        "#include <NvInferRuntime.h>",
        "#include <cstdio>",
        "#include <cstdlib>",
        "namespace stubs {",
        "using namespace nvinfer1;",
    ]
    for name in STUBBED:
        found = re.search(rf"^class {name} : public VRoot\n{{(.*?)^}};", text, re.S | re.M)
        assert found is not None, name
        lines.append(f"struct {name} : public apiv::{name} {{")
        functions = re.findall(r"virtual\s+([^;]*?)\s*=\s*0;", found[1])
        assert functions, name
        for function in functions:
            called = re.search(r"(\w+)\s*\(", function)
            assert called is not None, function
            lines.append(
                f'{" ".join(function.split())} override {{ std::fputs("fake nvinfer: '
                f'{called[1]} is not there\\n", stderr); std::abort(); }}'
            )
        lines.append("};")
    lines.append("}  // namespace stubs")
    _write_changed(folder / "nvinfer_stubs.h", "\n".join([*lines, ""]))


def fetch() -> None:
    """Puts all that is downloaded into HEADERS, in place of what is there."""
    if not os.environ.get(VARIABLE):
        _fetch("onnxruntime", _unpack_debian)
    _fetch("wheels", _unpack_wheels)


def _fetch(name: str, unpack: Callable[[Path], None]) -> None:
    """Whole, or not at all."""
    begun = HEADERS / f"{name}.begun"
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    unpack(begun)
    shutil.rmtree(HEADERS / name, ignore_errors=True)
    begun.rename(HEADERS / name)


def _fetched(name: str) -> Path:
    folder = HEADERS / name
    assert folder.exists(), f"{folder} is not there. Type: make build/headers"
    return folder


def _write_changed(path: Path, text: str) -> None:
    """Leaves a file alone that is so already: what includes it is not compiled again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _unpack_wheels(folder: Path) -> None:
    pins = Path(__file__).with_name("plugin_headers.txt")
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--dest", folder, "--requirement", pins),
        without=("PIP_CONSTRAINT",),
    )
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(folder, [n for n in wheel.namelist() if "/include/" in n])
        path.unlink()


def _unpack_debian(folder: Path) -> None:
    """By lists of their own, so that the system's packages stay what they are."""
    folder.joinpath("lists", "partial").mkdir(parents=True)
    folder.joinpath("sources").mkdir()
    codename = _codename()
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
        if path.exists() and (text := "\n".join(_of_suite(path, codename))):
            (folder / "sources" / path.name).write_text(text + "\n", encoding="utf-8")
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": folder / "sources",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "",
    }
    apt = ("apt-get", "-qq", *(f"--option={key}={value}" for key, value in options.items()))
    try:
        _run(*apt, "update")
        _run(*apt, "download", PACKAGE, folder=folder)
        _run("dpkg", "-x", next(folder.glob("*.deb")), folder)
    except (AssertionError, OSError) as error:
        raise AssertionError(
            f"the headers of ONNX Runtime cannot be had from Debian's {PACKAGE} of {SUITE}. "
            f"Name the folder of your own onnxruntime_c_api.h in {VARIABLE}."
        ) from error
    shutil.rmtree(folder / "lists")


def _codename() -> str:
    release = Path("/etc/os-release")
    text = release.read_text(encoding="utf-8") if release.exists() else ""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.MULTILINE)
    return found[1] if found else SUITE


def _of_suite(path: Path, codename: str) -> Iterator[str]:
    """The lines of a list that are of the system's suite, with SUITE in its place."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".list":
        for line in text.splitlines():
            if re.match(rf"deb\s(\[.*\]\s*)?\S+\s+{codename}\s", line):
                yield re.sub(rf"(?<=\s){codename}(?=\s)", SUITE, line)
    if path.suffix == ".sources":
        for stanza in re.split(r"\n\s*\n", text):
            suites = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
            if suites is not None and codename in suites[1].split():
                yield re.sub(r"(?m)^Suites:.*$", f"Suites: {SUITE}", stanza) + "\n"


def _run(*command: str | Path, folder: Path | None = None, without: tuple[str, ...] = ()) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in without}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"


if __name__ == "__main__":
    fetch()
